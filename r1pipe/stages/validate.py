"""Keep the drafts that pass the filters, and stop the pipeline where the data are not what they must be (stage `validate`)."""

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import get_args

import pandas as pd

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft, Rejection
from r1pipe.datasets.manifest import SPLITS, Manifest
from r1pipe.datasets.sample import lot
from r1pipe.datasets.scene30k import chain
from r1pipe.datasets.subset import stable_subset
from r1pipe.files import read_models, sha256, whole, write_json, write_jsonl
from r1pipe.params import Params
from r1pipe.params.section import Task
from r1pipe.progress import track
from r1pipe.scenes import Scene
from r1pipe.scenes.scene import scene_ids
from r1pipe.stages.runner import run
from r1pipe.synthesis.faults import FAULTS, OTHERWISE_CAUGHT
from r1pipe.synthesis.ledger import Bill, Peek
from r1pipe.synthesis.probe import probe
from r1pipe.validation import evidence
from r1pipe.validation.checks import checks
from r1pipe.validation.defects import annotations_table
from r1pipe.validation.figures import Figure, fault_figures
from r1pipe.validation.filters import reject_reason
from r1pipe.validation.gate import judge, run_checks
from r1pipe.validation.profile import Profile
from r1pipe.validation.release import Made, Making, write_release
from r1pipe.validation.samples import samples_table
from r1pipe.validation.summary import summary

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
    judge(outcomes, _WORK / "index.html")
    bill = _bill(params, found.drafts)
    costs = _costs(params, bill)
    _write(params, found, figures, costs)
    teaching = {
        "drafts": _counts(draft.teacher for draft in found.drafts),
        "bill": bill and bill._asdict(),
        "costs": costs,
    }
    told = {"rows": found.rows, "rejects": found.rejects, "refusals": found.refusals, "teaching": teaching}
    write_json(
        params.paths.metrics / "validate.json", told | summary(outcomes, figures, tables["annotations"], section)
    )


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
        self.refusals = _counts(rejection.reason for rejection in read_models(params.paths.rejects, Rejection))
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
    def asked(self) -> set[str]:
        """The ids of the samples that `synthesize` was to draft; the others are no rejects."""
        sources = {split: {s.id: s.source for s in self.samples if s.split == split} for split in SPLITS}
        return set().union(
            *(stable_subset(found, self._params.synthesize.most(split)) for split, found in sources.items())
        )

    @property
    def rows(self) -> dict[str, int]:
        """The number of kept drafts by split."""
        return {split: sum(draft.split == split for draft in self.kept) for split in ("train", "val")}

    @property
    def rejects(self) -> dict[str, int]:
        """The number of drafts by reject reason."""
        return _counts(reason for reason in self.reasons if reason is not None)


def _counts(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items()))


def _measure_filters(params: Params, found: Material) -> list[Figure]:
    """What the filters find of faults made on purpose, in training samples of whole scenes drawn by lot."""
    section, think = params.validate_.probe, params.think
    if section.samples == 0:
        return []
    asked = (sample for sample in found.samples if sample.split == "train" and think.on(sample.task))
    drawn = sorted(asked, key=lambda sample: (lot(sample.scene_id), sample.id))[: section.samples]
    scene = lru_cache(1)(lambda scene_id: Scene.load(params.paths.scenes, scene_id))
    shown = track(drawn, "validate filters", total=len(drawn))
    # Its own seed: the faults are others than those that the drafts may have.
    texts = probe(shown, scene, think, fault_rate=section.fault_rate, seed=params.base.seed + 1)
    return fault_figures([(text.fault, found.reason(text)) for text in texts], FAULTS, OTHERWISE_CAUGHT)


def _tables(params: Params, found: Material, figures: Sequence[Figure]) -> dict[str, pd.DataFrame]:
    """The evidence, by the name of its suite."""
    splits, ids = found.manifest.splits, scene_ids(params.paths.scenes)
    extents = {i: evidence.Extent.of(Scene.load(params.paths.scenes, i)) for i in track(ids, "validate scenes")}
    return {
        "manifest": evidence.files_table(found.manifest),
        "annotations": annotations_table(found.manifest),
        "scenes": evidence.scenes_table(found.manifest, extents),
        "objects": evidence.objects_table(splits, extents),
        "samples": samples_table(
            found.samples, splits, extents, asked=found.asked, drafted={draft.id for draft in found.drafts}
        ),
        "drafts": evidence.drafts_table(found.drafts, found.reasons, found.by_id),
        "cot": evidence.texts_table(found.kept, found.by_id, extents, params.think),
        "filters": evidence.filters_table(figures),
    }


def _write(params: Params, found: Material, figures: Sequence[Figure], costs: str) -> None:
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
        refusals=found.refusals,
        figures=figures,
        hashes=hashes,
        costs=costs,
    )
    write_release(made, making, paths.release)


def _bill(params: Params, drafts: Sequence[Draft]) -> Bill | None:
    """What the ledger says was paid; None where no teacher is a paid service."""
    if not any(draft.teacher.startswith("gemini/") for draft in drafts):
        return None
    with Peek(params.synthesize.gemini.ledger) as ledger:
        return ledger.bill(params.synthesize.gemini.model)


def _costs(params: Params, bill: Bill | None) -> str:
    """What a card says of money."""
    section = params.synthesize.gemini
    if bill is None:
        return "Nothing was paid: no teacher is a paid service."
    if bill.requests == 0:
        return f"What the teacher `gemini` cost is not known: the ledger {section.ledger} has no request to {section.model}."
    return (
        f"By the ledger, {section.model} answered {bill.requests} requests of {bill.prompt_tokens} prompt and "
        f"{bill.output_tokens} output tokens for ${bill.dollars:.2f}, those of rows that were not kept included."
    )


if __name__ == "__main__":
    run(main)
