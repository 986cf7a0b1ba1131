"""Keep the drafts that pass the filters, and stop the pipeline where the data are not what they must be (stage `validate`)."""

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft, Rejection
from r1pipe.datasets.manifest import SPLITS, Manifest
from r1pipe.datasets.sample import lot
from r1pipe.datasets.scene30k import chain
from r1pipe.errors import GateError
from r1pipe.files import read_models, sha256, whole, write_json, write_jsonl
from r1pipe.params import Params, Task
from r1pipe.progress import track
from r1pipe.scenes import Scene
from r1pipe.scenes.scene import scene_ids
from r1pipe.stages.runner import run
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.faults import FAULTS, OTHERWISE_CAUGHT
from r1pipe.synthesis.scripted import ScriptedTeacher
from r1pipe.validation import evidence
from r1pipe.validation.checks import checks
from r1pipe.validation.defects import annotations_table, defect_counts
from r1pipe.validation.figures import Figure, fault_figures
from r1pipe.validation.filters import reject_reason
from r1pipe.validation.gate import Outcome, run_checks
from r1pipe.validation.profile import Profile
from r1pipe.validation.release import Made, Making, write_release
from r1pipe.validation.samples import samples_table

logger = logging.getLogger(__name__)

_WORK = Path(".work/validate/data_docs")
"""Where the report stands when the gate closes: the stage's outputs do not appear then."""


def main(params: Params) -> None:
    """Filter, check, and only then write.

    Raises:
        GateError: if a critical expectation fails; names each with its rows, and where the report is.
    """
    found = Material(params)
    figures = _measure_filters(params, found)
    tables = _tables(params, found, figures)
    section = params.validate_
    drifts = Profile.load(section.profile).drifts(section.max_drift) if section.profile is not None else ()
    outcomes = run_checks([*checks(section, get_args(Task), SPLITS), *drifts], tables, _WORK)
    _judge(outcomes)
    _write(params, found, figures)
    write_json(params.paths.metrics / "validate.json", _metrics(params, outcomes, found, figures, tables))


def profile(params: Params, path: Path) -> None:
    """Store how the data are distributed as they are now."""
    Profile.of(_tables(params, Material(params), ())).save(path)


class Material:
    """What the stage reads, and what the filters make of it."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self.manifest = Manifest.load(params.paths.manifest)
        self.samples = [s for split in SPLITS for s in read_models(params.paths.samples / f"{split}.jsonl", Sample)]
        self.by_id = {sample.id: sample for sample in self.samples}
        self.drafts = read_models(params.paths.drafts, Draft)
        self.refusals = Counter(rejection.reason for rejection in read_models(params.paths.rejects, Rejection))
        self.reasons = [self.reason(draft) for draft in self.drafts]

    def reason(self, draft: Draft) -> str | None:
        """Why a draft is rejected; one of no sample is kept from the output, and the gate stops for it anyway."""
        sample, params = self.by_id.get(draft.id), self._params
        return "no_sample" if sample is None else reject_reason(draft, sample, params.think, params.validate_.filters)

    @cached_property
    def kept(self) -> list[Draft]:
        """The drafts that passed."""
        return [draft for draft, reason in zip(self.drafts, self.reasons, strict=True) if reason is None]

    @property
    def rejects(self) -> dict[str, int]:
        """The number of drafts by reject reason."""
        return dict(sorted(Counter(reason for reason in self.reasons if reason is not None).items()))


def _measure_filters(params: Params, found: Material) -> list[Figure]:
    """What the filters find of faults made on purpose, in texts that are written for this alone."""
    probe = params.validate_.probe
    if probe.samples == 0:
        return []
    texts = asyncio.run(_probe(params, found.samples))
    return fault_figures([(text.fault, found.reason(text)) for text in texts], FAULTS, OTHERWISE_CAUGHT)


async def _probe(params: Params, samples: Sequence[Sample]) -> list[Draft]:
    """The scripted teacher on training samples, whole scenes drawn by lot, with a seed and fault rates of its own."""
    probe, kind = params.validate_.probe, params.think
    asked = sorted(
        (s for s in samples if s.split == "train" and kind.on(s.task)), key=lambda s: (lot(s.scene_id), s.scene_id, s.id)
    )[: probe.samples]
    teacher = ScriptedTeacher(seed=params.base.seed + 1, fault_rates=dict.fromkeys(FAULTS, probe.fault_rate))
    scene = lru_cache(1)(lambda scene_id: Scene.load(params.paths.scenes, scene_id))
    shown = track(asked, "validate filters", total=len(asked))
    rows = [row async for row in draft_all(shown, teacher, scene, params.think, concurrency=1)]
    return [row for row in rows if isinstance(row, Draft)]


def _tables(params: Params, found: Material, figures: Sequence[Figure]) -> dict[str, pd.DataFrame]:
    """The evidence, by the name of its suite."""
    splits, ids = found.manifest.splits, scene_ids(params.paths.scenes)
    extents = {i: evidence.Extent.of(Scene.load(params.paths.scenes, i)) for i in track(ids, "validate scenes")}
    return {
        "manifest": evidence.files_table(found.manifest),
        "annotations": annotations_table(found.manifest),
        "scenes": evidence.scenes_table(found.manifest, extents),
        "objects": evidence.objects_table(splits, extents),
        "samples": samples_table(found.samples, splits, extents, {draft.id for draft in found.drafts}),
        "drafts": evidence.drafts_table(found.drafts, found.reasons, found.by_id),
        "cot": evidence.texts_table(found.kept, found.by_id, extents, params.think),
        "filters": evidence.filters_table(figures),
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


def _write(params: Params, found: Material, figures: Sequence[Figure]) -> None:
    """The kept texts by split, the dataset for others, and the report."""
    paths = params.paths
    with whole(paths.cot) as folder, whole(paths.data_docs) as data_docs:
        folder.mkdir()
        for split in ("train", "val"):
            rows = (draft.model_dump(mode="json", exclude_none=True) for draft in found.kept if draft.split == split)
            write_jsonl(folder / f"{split}.jsonl", rows)
        shutil.move(_WORK, data_docs)
    kinds = {location.scene.id: location.root.kind for location in found.manifest.locations()}
    made = [Made(chain(draft, found.by_id[draft.id]), draft.split, kinds[draft.scene_id]) for draft in found.kept]
    hashes = {"the manifest of every raw file": sha256(paths.manifest), "the drafts": sha256(paths.drafts)}
    making = Making(
        filters=params.validate_.filters,
        rejects=found.rejects,
        refusals=dict(sorted(found.refusals.items())),
        figures=figures,
        hashes=hashes,
        costs=_costs(found.drafts),
    )
    write_release(made, making, paths.release)


def _costs(drafts: Sequence[Draft]) -> str:
    """What a card says of money."""
    if any(draft.teacher == "gemini" for draft in drafts):
        return "The teacher `gemini` is paid by the token; what these rows cost stands in the ledger of whoever made them."
    return "Nothing was paid: no teacher is a paid service."


def _metrics(
    params: Params,
    outcomes: Sequence[Outcome],
    found: Material,
    figures: Sequence[Figure],
    tables: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    counts = Counter((outcome.check.severity, outcome.passed) for outcome in outcomes)
    section = params.validate_
    return {
        "expectations": {
            severity: {"passed": counts[severity, True], "failed": counts[severity, False]}
            for severity in ("critical", "warning")
        },
        "warnings": {o.check.name: f"{o.check.meaning} Found {o.found}" for o in outcomes if not o.passed},
        "rows": {split: sum(draft.split == split for draft in found.kept) for split in ("train", "val")},
        "rejects": found.rejects,
        "refusals": dict(sorted(found.refusals.items())),
        "faults": {
            figure.fault: {
                "filter": figure.filter,
                "recall": figure.recall._asdict(),
                "precision": figure.precision._asdict(),
            }
            for figure in figures
        },
        "drift": {
            "profile": None if section.profile is None else section.profile.as_posix(),
            "allowed": section.max_drift,
            "divergence": {o.check.name.removeprefix("drift_"): o.divergence for o in outcomes if o.divergence is not None},
        },
        "defects": defect_counts(tables["annotations"]),
    }


if __name__ == "__main__":
    run(main)
