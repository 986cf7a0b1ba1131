"""What each task asks a model, and how its answers become rows of a prediction file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from r1pipe.datasets.sample import Sample, lot
from r1pipe.errors import DataError
from r1pipe.geometry import Box, boxes_array
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.prompts import Request
from r1pipe.params.section import EvaluatedTask, Task
from r1pipe.response import Response, answer_boxes, identifier

Row = dict[str, Any]
Features = Mapping[str, SceneFeatures]
SOURCES = {
    "situated": ("sqa3d",),
    "grounding": ("scanrefer", "nr3d", "sr3d"),
    "multi-grounding": ("multi3drefer",),
}
"""The benchmarks of tasks that others ask too: 3D-LLM's questions have no pose, Multi3DRefer's any number of targets."""


class Questions(NamedTuple):
    """A task over some samples: what to ask, and what is right."""

    requests: list[Request]
    keys: list[Row]
    """Per request, what its row of the prediction file starts with."""

    references: list[Row]
    samples: Sequence[Sample] = ()
    """Per request, what its rewards are read from; none where the task has no rewards."""


def questions(task: EvaluatedTask, samples: Sequence[Sample], features: Features, limit: int | None) -> Questions:
    """The requests and references of a task, at most `limit` references, chosen by a hash of their ids.

    Raises:
        DataError: if the samples hold nothing of this task.
    """
    mine = [s for s in samples if s.task == asked_as(task) and s.source in SOURCES.get(task, (s.source,))]
    asked = _BUILDERS[task](mine, features, limit)
    if not asked.references:
        raise DataError(f"Expected samples of task {task} to evaluate, found none among {len(samples)}.")
    return asked


def asked_as(task: EvaluatedTask) -> Task:
    """The task that the model is told."""
    return "grounding" if task == "multi-grounding" else task


def predictions(
    task: EvaluatedTask, asked: Questions, responses: Sequence[Response | None], features: Features
) -> list[Row]:
    """One row a request; what does not follow the grammar answers nothing."""
    return [
        key | _ANSWERS[task](response, features[request.scene_id])
        for request, key, response in zip(asked.requests, asked.keys, responses, strict=True)
    ]


def chosen(names: Sequence[str], limit: int | None) -> set[str]:
    """At most `limit` names: the same ones whatever else is in the data, and in whatever order it comes."""
    return set(sorted(names, key=lot)[:limit])


def _qa(samples: Sequence[Sample], features: Features, limit: int | None) -> Questions:
    kept = chosen([sample.id for sample in samples], limit)
    mine = [sample for sample in samples if sample.id in kept]
    references: list[Row] = [
        {"id": s.id, "answers": s.answers} | ({"question_type": s.tags[0]} if s.tags else {}) for s in mine
    ]
    return Questions([_request(sample) for sample in mine], [{"id": sample.id} for sample in mine], references, mine)


def _grounding(samples: Sequence[Sample], features: Features, limit: int | None) -> Questions:
    single = [sample for sample in samples if len(sample.boxes) == 1]
    kept = chosen([sample.id for sample in single], limit)
    mine = [sample for sample in single if sample.id in kept]
    references: list[Row] = [{"id": sample.id, "boxes": sample.boxes} | _groups(sample.tags) for sample in mine]
    return Questions([_request(sample) for sample in mine], [{"id": sample.id} for sample in mine], references, mine)


def _multi_grounding(samples: Sequence[Sample], features: Features, limit: int | None) -> Questions:
    kept = chosen([sample.id for sample in samples], limit)
    mine = [sample for sample in samples if sample.id in kept]
    references: list[Row] = [
        {"id": s.id, "boxes": s.boxes} | ({"eval_type": s.tags[0]} if s.tags else {}) for s in mine
    ]
    return Questions([_request(sample) for sample in mine], [{"id": sample.id} for sample in mine], references)


def _groups(tags: Sequence[str]) -> Row:
    """The groups that a grounding query is scored in: ScanRefer's uniqueness, Nr3D's difficulty and dependence on the view."""
    if {"unique", "multiple"} & set(tags):
        return {"unique": "unique" in tags}
    groups = [tag for tag in tags if tag in ("easy", "hard")]
    view = "view-dependent" if "view-dependent" in tags else "view-independent"
    return {"tags": [*groups, view]} if groups else {}


def _captioning(samples: Sequence[Sample], features: Features, limit: int | None) -> Questions:
    captions: dict[tuple[str, int], list[str]] = defaultdict(list)
    boxes: dict[tuple[str, int], Box] = {}
    for sample in samples:
        if len(sample.object_ids) == 1:
            key = (sample.scene_id, sample.object_ids[0])
            captions[key] += sample.answers
            boxes[key] = sample.boxes[0]
    kept = chosen([f"{scene}|{number}" for scene, number in boxes], limit)
    mine = sorted(key for key in boxes if f"{key[0]}|{key[1]}" in kept)
    references: list[Row] = [
        {"scene_id": scene, "object_id": number, "box": boxes[scene, number], "captions": captions[scene, number]}
        for scene, number in mine
    ]
    targets: dict[str, list[Box]] = defaultdict(list)
    for scene, number in mine:
        targets[scene].append(boxes[scene, number])
    asked = [(scene, i) for scene, wanted in targets.items() for i in _heard(features[scene], wanted)]
    requests = [Request(scene, "captioning", f"describe {identifier(i)}.") for scene, i in asked]
    keys: list[Row] = [
        {"scene_id": scene, "box": [round(float(v), 4) for v in features[scene].object_boxes[i]]} for scene, i in asked
    ]
    return Questions(requests, keys, references)


def _heard(features: SceneFeatures, boxes: Sequence[Box]) -> list[int]:
    """The detections whose captions can count: m@kIoU hears of each object only the box that overlaps it most."""
    return sorted({i for i in features.match(boxes_array(boxes)) if i is not None})


def _request(sample: Sample) -> Request:
    return Request(sample.scene_id, sample.task, sample.question, sample.pose, sample.history)


def _answer(response: Response | None, features: SceneFeatures) -> Row:
    return {"answer": response.answer if response else ""}


def _box(response: Response | None, features: SceneFeatures) -> Row:
    return {"boxes": _boxes(response, features)["boxes"][:1]}


def _boxes(response: Response | None, features: SceneFeatures) -> Row:
    found = answer_boxes(response.answer, features.boxes()) if response else []
    return {"boxes": [[round(value, 4) for value in box] for box in found]}


def _caption(response: Response | None, features: SceneFeatures) -> Row:
    return {"caption": response.answer if response else ""}


_BUILDERS = {
    "qa": _qa,
    "situated": _qa,
    "grounding": _grounding,
    "multi-grounding": _multi_grounding,
    "captioning": _captioning,
    "dialogue": _qa,
    "planning": _qa,
}
_ANSWERS = {
    "qa": _answer,
    "situated": _answer,
    "grounding": _box,
    "multi-grounding": _boxes,
    "captioning": _caption,
    "dialogue": _answer,
    "planning": _answer,
}
