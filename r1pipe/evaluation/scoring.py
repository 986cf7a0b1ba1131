"""Score a prediction file against a reference file: what `r1pipe score` runs and what the stage `evaluate` reports.

All numbers are on 0..100 (CIDEr is 100 times coco-caption's).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError
from r1pipe.evaluation import rows
from r1pipe.evaluation.protocols import AnswerProtocol, CaptionProtocol, ScoreTask, protocol
from r1pipe.files import read_jsonl, write_json
from r1pipe.metrics.captions import NUM_GRAMS, Corpus, bleu, bleu_statistics, cider_d, rouge_l
from r1pipe.metrics.dense import SILENCE, Caption, Spoken, assign
from r1pipe.metrics.grounding import THRESHOLDS, box_iou, f1, percent
from r1pipe.metrics.intervals import Measure, differences, mean

Rows = Iterable[Mapping[str, Any]]
Measures = dict[str, Measure]
NO_METEOR = "no METEOR jar: its scores need Java and a jar that is not part of this package, and another METEOR scores otherwise"
"""Why `meteor` is null."""


def score(
    task: ScoreTask, predictions: Rows, references: Rows, protocol_name: str | None = None
) -> dict[str, float | int | str | None]:
    """Every metric of a task, with `num_samples`, the protocol's name, and `meteor` null with the reason.

    Raises:
        DataError: if a row does not fit its format or the predictions do not cover the references' ids exactly.
    """
    measures = measure(task, predictions, references, protocol_name)
    values: dict[str, float | int | str | None] = {name: item.value for name, item in measures.items()}
    for suffix in _meteor_suffixes(measures):
        values[f"meteor{suffix}"] = None
        values["meteor_reason"] = NO_METEOR
    values["num_samples"] = max(item.num_samples for item in measures.values())
    values["protocol"] = protocol(task, protocol_name).name
    return values


def _meteor_suffixes(measures: Mapping[str, Measure]) -> list[str]:
    return [name.removeprefix("cider") for name in measures if name.startswith("cider")]


def measure(task: ScoreTask, predictions: Rows, references: Rows, protocol_name: str | None = None) -> Measures:
    """Every metric of a task over its samples, ready to be summed up or resampled.

    Raises:
        DataError: as `score`.
    """
    rules = protocol(task, protocol_name)
    if isinstance(rules, CaptionProtocol):
        return _captioning(predictions, references, rules)
    if isinstance(rules, AnswerProtocol):
        return _answers(predictions, references, rules)
    return (_grounding if task == "grounding" else _multi_grounding)(predictions, references)


def run_score(
    task: ScoreTask, predictions: Path, references: Path, json_out: Path | None, protocol_name: str | None = None
) -> dict[str, float | int | str | None]:
    """`r1pipe score`: score a file, and write the result where `json_out` says."""
    values = score(task, read_jsonl(predictions), read_jsonl(references), protocol_name)
    if json_out is not None:
        write_json(json_out, values)
    return values


def run_compare(
    task: ScoreTask, first: Path, second: Path, references: Path, *, resamples: int, seed: int
) -> dict[str, dict[str, float | int]]:
    """`r1pipe compare`: two prediction files over the same references, with a paired 95 % interval of second minus first."""
    ours, theirs = (measure(task, read_jsonl(path), read_jsonl(references)) for path in (first, second))
    gaps = differences(ours, theirs, resamples=resamples, seed=seed)
    return {
        name: {
            "first": ours[name].value,
            "second": theirs[name].value,
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "n": gap.n,
        }
        for name, gap in gaps.items()
    }


def _answers(predictions: Rows, references: Rows, rules: AnswerProtocol) -> Measures:
    wanted = rows.parse(references, rows.AnswerReference, "answer references")
    given = rows.in_order(rows.parse(predictions, rows.Answer, "answers"), wanted)
    measures: Measures = {}
    if rules.compare is not None:
        matches = [rules.compare(a.answer, b.answers) for a, b in zip(given, wanted, strict=True)]
        exact_N = np.array([item.exact for item in matches], dtype=np.float64)
        measures["em"] = mean(exact_N)
        measures["em_refined"] = mean(np.array([item.refined for item in matches], dtype=np.float64))
        groups = _groups([[row.question_type] if row.question_type else [] for row in wanted])
        measures |= {f"em_{name}": mean(exact_N, group_N) for name, group_N in groups.items()}
    texts = [[rules.reference(text) for text in row.answers] for row in wanted]
    return measures | _ngrams([rules.prediction(row.answer) for row in given], texts, "")


def _ngrams(candidates: Sequence[str], references: Sequence[Sequence[str]], suffix: str) -> Measures:
    corpus = Corpus(candidates, references)
    statistics = bleu_statistics(corpus)
    bleus = {
        f"bleu_{n}{suffix}": Measure(statistics, partial(_bleu, n), len(candidates)) for n in range(1, NUM_GRAMS + 1)
    }
    return {f"cider{suffix}": mean(cider_d(corpus)), **bleus, f"rouge_l{suffix}": mean(rouge_l(corpus))}


def _bleu(n: int, sums_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * bleu(sums_K)[..., n - 1])


def _groups(names: Sequence[Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """For each name, which samples bear it; names as they stand in a metric's name, sorted."""
    slugs = [{re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in some} for some in names]
    return {name: np.array([name in some for some in slugs]) for name in sorted(set().union(*slugs))}


def _grounding(predictions: Rows, references: Rows) -> Measures:
    wanted = rows.parse(references, rows.BoxesReference, "box references")
    given = rows.in_order(rows.parse(predictions, rows.Boxes, "boxes"), wanted)
    for row in wanted:
        if len(row.boxes) != 1:
            raise DataError(f"Expected one box a reference in grounding, found {len(row.boxes)} in {row.id}.")
    iou_N = np.array([box_iou(ours.boxes, theirs.boxes[0]) for ours, theirs in zip(given, wanted, strict=True)])
    groups = _groups([[*_uniqueness(row), *row.tags] for row in wanted])
    accuracies = {f"acc_{percent(k)}": (iou_N >= k).astype(np.float64) for k in THRESHOLDS}
    whole = {name: mean(hit_N) for name, hit_N in accuracies.items()}
    return whole | {f"{g}_{name}": mean(hit_N, group_N) for g, group_N in groups.items() for name, hit_N in accuracies.items()}  # fmt: skip


def _uniqueness(row: rows.BoxesReference) -> list[str]:
    return [] if row.unique is None else ["unique" if row.unique else "multiple"]


def _multi_grounding(predictions: Rows, references: Rows) -> Measures:
    wanted = rows.parse(references, rows.BoxesReference, "box references")
    given = rows.in_order(rows.parse(predictions, rows.Boxes, "boxes"), wanted)
    pairs = list(zip(given, wanted, strict=True))
    scores = {
        f"f1_{percent(k)}": np.array([f1(ours.boxes, theirs.boxes, k) for ours, theirs in pairs]) for k in THRESHOLDS
    }
    groups = _groups([[_query_type(row), *row.tags] for row in wanted])
    whole = {name: mean(f1_N) for name, f1_N in scores.items()}
    return whole | {f"{g}_{name}": mean(f1_N, group_N) for g, group_N in groups.items() for name, f1_N in scores.items()}  # fmt: skip


def _query_type(row: rows.BoxesReference) -> str:
    """Multi3DRefer's type: zero, single or multiple targets, the former two with or without distractors where that is known."""
    if len(row.boxes) > 1:
        return "mt"
    targets = "st" if row.boxes else "zt"
    return targets if row.unique is None else f"{targets}_{'wo_d' if row.unique else 'w_d'}"


def _captioning(predictions: Rows, references: Rows, rules: CaptionProtocol) -> Measures:
    wanted = rows.parse(references, rows.CaptionReference, "caption references")
    given = rows.parse(predictions, rows.Caption, "captions")
    spoken = _spoken(given, wanted)
    if not rules.silence_counts:
        heard = [i for i, item in enumerate(spoken) if item.iou > 0]
        wanted, spoken = [wanted[i] for i in heard], [spoken[i] for i in heard]
    if not wanted:
        raise DataError("Expected a predicted box that overlaps an annotated object, found none.")
    texts = [[rules.reference(text) for text in row.captions] for row in wanted]
    measures: Measures = {}
    for k in THRESHOLDS:
        counts: Callable[[float], bool] = k.__le__ if rules.inclusive else k.__lt__
        said = [rules.prediction(item.text if counts(item.iou) else SILENCE.text) for item in spoken]
        measures |= _ngrams(said, texts, f"_{percent(k)}")
    return measures


def _spoken(given: Sequence[rows.Caption], wanted: Sequence[rows.CaptionReference]) -> list[Spoken]:
    """The caption that speaks for each reference object: the row that names it, else the scene's row of highest IoU."""
    rows.check_once([(row.scene_id, row.object_id) for row in wanted], "references")
    named = {(row.scene_id, row.object_id): row for row in given if row.object_id is not None}
    _check_captions(given, wanted, num_named=len(named))
    boxes: dict[str, list[Caption]] = {}
    for row in given:
        if row.object_id is None:
            boxes.setdefault(row.scene_id, []).append(Caption(row.box, row.caption))
    spoken = []
    for reference in wanted:
        row_of = named.get((reference.scene_id, reference.object_id))
        own = [Caption(row_of.box, row_of.caption)] if row_of else boxes.get(reference.scene_id, [])
        spoken += assign(own, [reference.box])
    return spoken


def _check_captions(given: Sequence[rows.Caption], wanted: Sequence[rows.CaptionReference], *, num_named: int) -> None:
    """Refuse captions of objects or scenes that the references do not have, and two captions of one object."""
    scenes = {row.scene_id for row in wanted}
    objects = {(row.scene_id, row.object_id) for row in wanted}
    surplus = [
        row
        for row in given
        if row.scene_id not in scenes or (row.object_id is not None and (row.scene_id, row.object_id) not in objects)
    ]
    if surplus:
        raise DataError(
            f"Expected captions of the {len(objects)} reference objects and their {len(scenes)} scenes, "
            f"found {len(surplus)} surplus (the first of {surplus[0].scene_id}, object {surplus[0].object_id})."
        )
    repeated = sum(row.object_id is not None for row in given) - num_named
    if repeated:
        raise DataError(f"Expected at most one caption an object, found {repeated} repeated.")
