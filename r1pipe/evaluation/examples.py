"""Questions of the evaluation with what every arm said, for a person to read."""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from r1pipe.datasets.sample import Sample, lot
from r1pipe.geometry import Box
from r1pipe.metrics.answers import clean_answer, match
from r1pipe.metrics.dense import Caption, assign
from r1pipe.metrics.grounding import box_iou
from r1pipe.params import Think
from r1pipe.response import parse

Rows = Sequence[Mapping[str, Any]]


class Said(NamedTuple):
    """One arm's response."""

    arm: str
    thinking: str
    answer: str
    verdict: str
    """How it compares with the reference, in a few words."""

    right: bool | None
    """None where right and wrong are no categories."""


class Example(NamedTuple):
    """One question."""

    task: str
    scene_id: str
    question: str
    reference: str
    said: list[Said]


class Material(NamedTuple):
    """A task's files: its references, and each arm's predictions."""

    references: Rows
    predictions: Mapping[str, Rows]


def examples(material: Mapping[str, Material], samples: Sequence[Sample], think: Think, count: int) -> list[Example]:
    """`count` questions, the tasks in turn, chosen by a hash of their ids and by nothing else."""
    by_id = {sample.id: sample for sample in samples}
    makers = {"qa": _answered, "grounding": _pointed, "captioning": _described}
    queues = [
        [makers[task](row, found.predictions, by_id, think) for row in sorted(found.references, key=_order)[:count]]
        for task, found in material.items()
    ]
    return [example for example in chain.from_iterable(zip_longest(*queues)) if example is not None][:count]


def _order(row: Mapping[str, Any]) -> bytes:
    name = str(row.get("id") or f"{row['scene_id']}|{row['object_id']}")
    return lot(name)


def _answered(row: Mapping[str, Any], arms: Mapping[str, Rows], by_id: Mapping[str, Sample], think: Think) -> Example:
    sample = by_id[row["id"]]
    said = []
    for arm, rows in arms.items():
        found = _row_of(rows, row["id"])
        right = match(clean_answer(found["answer"]), [clean_answer(text) for text in row["answers"]]).exact
        said.append(Said(arm, *_spoken(found, sample, think), "right" if right else "wrong", right))
    return Example(sample.task, sample.scene_id, sample.question, " / ".join(row["answers"]), said)


def _pointed(row: Mapping[str, Any], arms: Mapping[str, Rows], by_id: Mapping[str, Sample], think: Think) -> Example:
    sample, target = by_id[row["id"]], Box(*row["boxes"][0])
    said = []
    for arm, rows in arms.items():
        found = _row_of(rows, row["id"])
        overlap = box_iou([Box(*box) for box in found["boxes"]], target)
        said.append(Said(arm, *_spoken(found, sample, think), f"IoU {overlap:.2f}", overlap >= 0.25))
    return Example(sample.task, sample.scene_id, sample.question, f"box {_metres(target)}", said)


def _described(row: Mapping[str, Any], arms: Mapping[str, Rows], by_id: Mapping[str, Sample], think: Think) -> Example:
    target = Box(*row["box"])
    said = []
    for arm, rows in arms.items():
        mine = [found for found in rows if found["scene_id"] == row["scene_id"]]
        (best,) = assign([Caption(Box(*found["box"]), found["caption"]) for found in mine], [target])
        said.append(Said(arm, "", best.text, f"IoU {best.iou:.2f}", None))
    question = f"describe the object in the box {_metres(target)}"
    return Example("captioning", row["scene_id"], question, " / ".join(row["captions"]), said)


def _row_of(rows: Rows, name: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["id"] == name)


def _spoken(row: Mapping[str, Any], sample: Sample, think: Think) -> tuple[str, str]:
    """Reasoning and answer, or the raw completion where it does not follow the grammar."""
    response = parse(row["completion"], think=think.on(sample.task))
    return (response.thinking, response.answer) if response else ("", row["completion"] or "(nothing)")


def _metres(box: Box) -> str:
    return f"at ({box.cx:.2f}, {box.cy:.2f}, {box.cz:.2f}), size {box.dx:.2f} x {box.dy:.2f} x {box.dz:.2f} m"
