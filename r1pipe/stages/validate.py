"""Keep the drafts that pass the filters, and stop the pipeline where the data are not what they must be (stage `validate`)."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.manifest import SPLITS, Manifest
from r1pipe.errors import GateError
from r1pipe.files import read_models, whole, write_json, write_jsonl
from r1pipe.params import Params, Task
from r1pipe.progress import track
from r1pipe.scenes import Scene
from r1pipe.scenes.scene import scene_ids
from r1pipe.stages.runner import run
from r1pipe.validation import evidence
from r1pipe.validation.checks import checks
from r1pipe.validation.filters import fault_figures, reject_reason
from r1pipe.validation.gate import Outcome, run_checks

logger = logging.getLogger(__name__)

_WORK = Path(".work/validate/data_docs")
"""Where the report stands when the gate closes: the stage's outputs do not appear then."""


def main(params: Params) -> None:
    """Filter, check, and only then write.

    Raises:
        GateError: if a critical expectation fails; names each, and where the report is.
    """
    samples = [s for split in SPLITS for s in read_models(params.paths.samples / f"{split}.jsonl", Sample)]
    drafts = read_models(params.paths.drafts, Draft)
    by_id = {sample.id: sample for sample in samples}
    reasons = [_reason(draft, by_id.get(draft.id), params) for draft in drafts]
    kept = [draft for draft, reason in zip(drafts, reasons, strict=True) if reason is None]
    outcomes = run_checks(
        checks(params.validate_, get_args(Task), SPLITS),
        _tables(params, samples, drafts, reasons),
        _WORK,
    )
    _judge(outcomes)
    _write(params, kept)
    write_json(params.paths.metrics / "validate.json", _metrics(outcomes, kept, drafts, reasons))


def _reason(draft: Draft, sample: Sample | None, params: Params) -> str | None:
    """A draft of no sample is kept from the output; the gate stops for it anyway."""
    return "no_sample" if sample is None else reject_reason(draft, sample, params.think, params.validate_.filters)


def _tables(params: Params, samples: list[Sample], drafts: list[Draft], reasons: list[str | None]) -> dict[str, Any]:
    """The evidence, by the name of its suite."""
    manifest = Manifest.load(params.paths.manifest)
    splits, ids = manifest.splits, scene_ids(params.paths.scenes)
    extents = {i: evidence.Extent.of(Scene.load(params.paths.scenes, i)) for i in track(ids, "validate scenes")}
    by_id = {sample.id: sample for sample in samples}
    kept = [draft for draft, reason in zip(drafts, reasons, strict=True) if reason is None]
    return {
        "manifest": evidence.files_table(manifest),
        "scenes": evidence.scenes_table(splits, extents),
        "objects": evidence.objects_table(splits, extents),
        "samples": evidence.samples_table(samples, splits, extents, {draft.id for draft in drafts}),
        "drafts": evidence.drafts_table(drafts, reasons, by_id),
        "cot": evidence.texts_table(kept, by_id, extents, params.think),
    }


def _judge(outcomes: Sequence[Outcome]) -> None:
    """Show the warnings; stop at what is critical."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        if outcome.check.severity == "warning":
            logger.warning("%s: %s Found %s", outcome.check.name, outcome.check.meaning, outcome.found)
    critical = [outcome for outcome in failed if outcome.check.severity == "critical"]
    if critical:
        found = "; ".join(f"{o.check.name} ({o.check.table}: {o.found})" for o in critical)
        raise GateError(
            f"Expected every critical expectation about the data to hold, found {len(critical)} that fail: {found}; "
            f"read {_WORK / 'index.html'}."
        )


def _write(params: Params, kept: Sequence[Draft]) -> None:
    """The kept texts by split, and the report."""
    with whole(params.paths.cot) as folder, whole(params.paths.data_docs) as data_docs:
        folder.mkdir()
        for split in ("train", "val"):
            rows = (draft.model_dump(mode="json", exclude_none=True) for draft in kept if draft.split == split)
            write_jsonl(folder / f"{split}.jsonl", rows)
        shutil.move(_WORK, data_docs)


def _metrics(
    outcomes: Sequence[Outcome], kept: Sequence[Draft], drafts: Sequence[Draft], reasons: Sequence[str | None]
) -> dict[str, Any]:
    counts = Counter((outcome.check.severity, outcome.passed) for outcome in outcomes)
    faults = ((draft.fault, reason) for draft, reason in zip(drafts, reasons, strict=True))
    return {
        "expectations": {
            severity: {"passed": counts[severity, True], "failed": counts[severity, False]}
            for severity in ("critical", "warning")
        },
        "rows": {split: sum(draft.split == split for draft in kept) for split in ("train", "val")},
        "rejects": dict(sorted(Counter(reason for reason in reasons if reason is not None).items())),
        "faults": fault_figures(faults),
    }


if __name__ == "__main__":
    run(main)
