"""Questions of the evaluation with what every arm said, for a person to read: some by lot, the best, the worst."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np

from r1pipe.datasets.sample import Sample, lot
from r1pipe.evaluation.looking import TUNED
from r1pipe.evaluation.scoring import measure
from r1pipe.geometry import Box, iou
from r1pipe.metrics.answers import clean_answer, match
from r1pipe.metrics.captions import Corpus, rouge_l
from r1pipe.metrics.grounding import box_iou
from r1pipe.metrics.tokens import tokenize
from r1pipe.params.run import Think
from r1pipe.response import parse

Row = Mapping[str, Any]
Rows = Sequence[Row]


class Said(NamedTuple):
    """One arm's response."""

    arm: str
    thinking: str
    answer: str
    verdict: str
    """How it compares with the reference, in a few words."""

    right: bool | None
    """None where right and wrong are no categories."""

    rewards: Mapping[str, float] = {}
    """The means of completions sampled for this question, by reward; those that do not apply are left out."""

    boxes: Sequence[Box] = ()
    """Where it points."""


class Example(NamedTuple):
    """One question."""

    task: str
    scene_id: str
    question: str
    reference: str
    targets: Sequence[Box]
    """What the question is about, or asks for."""

    said: list[Said]

    @property
    def pointed(self) -> Sequence[Box]:
        """Where the tuned model points."""
        return next((said.boxes for said in self.said if said.arm == TUNED), ())


EXACT = ("qa", "situated")
"""Tasks whose answers are right or wrong."""

SHOWN = (*EXACT, "grounding", "captioning", "dialogue", "planning")
"""Tasks with one thing asked for."""


class Material(NamedTuple):
    """A task's files: its references, and each arm's predictions."""

    references: Rows
    predictions: Mapping[str, Rows]


class Speaker(NamedTuple):
    """The caption that speaks for an object."""

    text: str
    iou: float
    box: Box | None
    """None where no caption's box overlaps the object."""


class Ranked(NamedTuple):
    """Questions of each task in turn, by how well the tuned model answers them."""

    best: list[Example]
    worst: list[Example]


class Pool:
    """All questions of an evaluation, to take examples from."""

    def __init__(
        self, material: Mapping[str, Material], rewards: Mapping[str, Rows], samples: Iterable[Sample], think: Think
    ) -> None:
        """Take what was asked and said.

        Args:
            material: by task.
            rewards: rows of `<arm>-reward.jsonl` by arm.
            samples: what was asked about.
            think: which tasks reason first.
        """
        self._material, self._think = material, think
        self._samples = {sample.id: sample for sample in samples}
        self._rewards = {arm: {row["id"]: row for row in rows} for arm, rows in rewards.items()}

    def by_lot(self, count: int) -> list[Example]:
        """`count` questions, the tasks in turn, chosen by a hash of their ids and by nothing else."""
        return _in_turn([self._shown(task, self._lots(task)[:count]) for task in self._material])[:count]

    def ranked(self, count: int) -> Ranked:
        """`count` questions a task from either end.

        Short answers rank by whether they are right, long ones by ROUGE-L, then by reward; boxes by IoU, then by reward; captions by CIDEr at IoU 0.5,
        then by IoU. What ties stands in the order of the lot.
        """
        best, worst = [], []
        for task in self._material:
            rows, merit = self._lots(task), self._merits(task).__getitem__
            best.append(self._shown(task, sorted(rows, key=merit, reverse=True)[:count]))
            worst.append(self._shown(task, sorted(rows, key=merit)[:count]))
        return Ranked(_in_turn(best), _in_turn(worst))

    def _lots(self, task: str) -> list[int]:
        """The rows of a task's references, as the lot orders them."""
        names = [_name(row) for row in self._material[task].references]
        return sorted(range(len(names)), key=lambda i: lot(names[i]))

    def _shown(self, task: str, rows: Iterable[int]) -> list[Example]:
        special = {"grounding": self._pointed, "captioning": self._described}
        make = special.get(task, partial(self._answered, task))
        return [make(self._material[task].references[i]) for i in rows]

    def _merits(self, task: str) -> list[tuple[float, float]]:
        """How good the tuned model's response to each reference is, the more important number first."""
        references, predictions = self._material[task].references, self._material[task].predictions[TUNED]
        if task == "captioning":
            worth_N = measure("captioning", predictions, references)["cider_50"].statistics[:, 0].tolist()
            return list(zip(worth_N, [spoken.iou for spoken in _speakers(predictions, references)], strict=True))
        found = {row["id"]: row for row in predictions}
        first = _overlap if task == "grounding" else _rightness if task in EXACT else _rouge
        rewards = self._rewards.get(TUNED, {})
        return [(first(found[r["id"]], r), rewards.get(r["id"], {}).get("total") or 0.0) for r in references]

    def _answered(self, task: str, row: Row) -> Example:
        sample = self._samples[row["id"]]
        said = []
        for arm, rows in self._material[task].predictions.items():
            found = _row_of(rows, row["id"])
            right = bool(_rightness(found, row)) if task in EXACT else None
            told = f"ROUGE-L {100 * _rouge(found, row):.0f}" if right is None else "right" if right else "wrong"
            said.append(Said(arm, *self._spoken(found, sample), told, right, self._rewarded(arm, sample)))
        return Example(task, sample.scene_id, sample.question, " / ".join(row["answers"]), sample.boxes, said)

    def _pointed(self, row: Row) -> Example:
        sample, target = self._samples[row["id"]], Box(*row["boxes"][0])
        said = []
        for arm, rows in self._material["grounding"].predictions.items():
            found = _row_of(rows, row["id"])
            overlap, boxes = _overlap(found, row), [Box(*box) for box in found["boxes"]]
            told, rewards = f"IoU {overlap:.2f}", self._rewarded(arm, sample)
            said.append(Said(arm, *self._spoken(found, sample), told, overlap >= 0.25, rewards, boxes))
        return Example("grounding", sample.scene_id, sample.question, f"box {_metres(target)}", [target], said)

    def _described(self, row: Row) -> Example:
        target = Box(*row["box"])
        said = []
        for arm, rows in self._material["captioning"].predictions.items():
            (best,) = _speakers(rows, [row])
            boxes = [best.box] if best.box else []
            said.append(Said(arm, "", best.text, f"IoU {best.iou:.2f}", None, boxes=boxes))
        question = f"describe the object in the box {_metres(target)}"
        return Example("captioning", row["scene_id"], question, " / ".join(row["captions"]), [target], said)

    def _spoken(self, row: Row, sample: Sample) -> tuple[str, str]:
        """Reasoning and answer, or the raw completion where it does not follow the grammar."""
        response = parse(row["completion"], think=self._think.on(sample.task))
        return (response.thinking, response.answer) if response else ("", row["completion"] or "(nothing)")

    def _rewarded(self, arm: str, sample: Sample) -> dict[str, float]:
        row = self._rewards.get(arm, {}).get(sample.id, {})
        return {name: value for name, value in row.items() if name != "id" and value is not None}


def _in_turn(queues: Sequence[Sequence[Example]]) -> list[Example]:
    return [example for example in chain.from_iterable(zip_longest(*queues)) if example is not None]


def _name(row: Row) -> str:
    return str(row.get("id") or f"{row['scene_id']}|{row['object_id']}")


def _rightness(found: Row, reference: Row) -> float:
    return float(match(clean_answer(found["answer"]), [clean_answer(text) for text in reference["answers"]]).exact)


def _rouge(found: Row, reference: Row) -> float:
    said, *known = (" ".join(tokenize(text)) for text in (found["answer"], *reference["answers"]))
    return float(rouge_l(Corpus([said], [known]))[0])


def _overlap(found: Row, reference: Row) -> float:
    return box_iou([Box(*box) for box in found["boxes"]], Box(*reference["boxes"][0]))


def _speakers(rows: Rows, references: Rows) -> list[Speaker]:
    """The caption that speaks for each object: the one of its scene whose box overlaps it most."""
    by_scene: dict[str, list[Row]] = {}
    for row in rows:
        by_scene.setdefault(row["scene_id"], []).append(row)
    return [_speaker(by_scene.get(reference["scene_id"], []), Box(*reference["box"])) for reference in references]


def _speaker(rows: Rows, target: Box) -> Speaker:
    overlap_C = iou([row["box"] for row in rows], target)[:, 0] if rows else np.zeros(1)
    if not overlap_C.any():
        return Speaker("(nothing about this object)", 0.0, None)
    best = rows[int(overlap_C.argmax())]
    return Speaker(best["caption"], float(overlap_C.max()), Box(*best["box"]))


def _row_of(rows: Rows, name: str) -> Row:
    return next(row for row in rows if row["id"] == name)


def _metres(box: Box) -> str:
    return f"at ({box.cx:.2f}, {box.cy:.2f}, {box.cz:.2f}), size {box.dx:.2f} x {box.dy:.2f} x {box.dz:.2f} m"
