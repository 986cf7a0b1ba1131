"""What the expectations are about: tables with one row a file, scene, object, sample, draft and kept text.

Each column is a plain fact that one standard expectation can judge; boxes and coordinates are metres, scene frame.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.manifest import Manifest, room_of
from r1pipe.geometry import Box, boxes_array
from r1pipe.params import Split, Think
from r1pipe.response import identifiers, parse
from r1pipe.scenes import Scene, SceneObject
from r1pipe.validation.filters import answer_similarity, steps
from r1pipe.validation.leaks import leaks

KEPT = "kept"
"""Stands for the reject reason of a draft that passed every filter."""


class Extent(NamedTuple):
    """A scene without its points."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    objects: Mapping[int, SceneObject]

    @classmethod
    def of(cls, scene: Scene) -> "Extent":
        """The bounds of a scene's cloud and its objects."""
        low, high = scene.xyz.min(axis=0).tolist(), scene.xyz.max(axis=0).tolist()
        return cls(tuple(low), tuple(high), {o.id: o for o in scene.objects})


def files_table(manifest: Manifest) -> pd.DataFrame:
    """One row a raw file: `id`, `size`, `sha256`."""
    files = [(f"{loc.root.path}/{f.path}", f.size, f.sha256) for loc in manifest.locations() for f in loc.scene.files]
    files += [
        (f"{root.path}/{f.path}", f.size, f.sha256)
        for root in manifest.roots
        for f in [*root.meta, *(f for a in root.annotations for f in a.files)]
    ]
    return pd.DataFrame(files, columns=["id", "size", "sha256"])


def scenes_table(splits: Mapping[str, Split], extents: Mapping[str, Extent]) -> pd.DataFrame:
    """One row a scene of the manifest: in how many splits its room is, and a scene with the very same objects."""
    rooms: dict[str, set[str]] = defaultdict(set)
    layouts: dict[str, set[str]] = defaultdict(set)
    for scene_id, split in splits.items():
        rooms[room_of(scene_id)].add(split)
        layouts[_layout(scene_id, extents)].add(split)
    rows = [
        {
            "id": scene_id,
            "split": split,
            "prepared": scene_id in extents,
            "room_splits": len(rooms[room_of(scene_id)]),
            "layout_splits": len(layouts[_layout(scene_id, extents)]),
            "span": _span(extents.get(scene_id)),
        }
        for scene_id, split in splits.items()
    ]
    return pd.DataFrame(rows, columns=["id", "split", "prepared", "room_splits", "layout_splits", "span"])


def _layout(scene_id: str, extents: Mapping[str, Extent]) -> str:
    """Labels and sizes of a scene's objects to the centimetre; its own id where there are too few to tell."""
    extent = extents.get(scene_id)
    if extent is None or len(extent.objects) < _TELLING_OBJECTS:
        return scene_id
    return str(sorted((o.label, *(round(side, 2) for side in o.box.size)) for o in extent.objects.values()))


_TELLING_OBJECTS = 4


def _span(extent: Extent | None) -> float | None:
    return None if extent is None else float(np.subtract(extent.high, extent.low).max())


def objects_table(splits: Mapping[str, Split], extents: Mapping[str, Extent]) -> pd.DataFrame:
    """One row an annotated object: its class, whether training has its label, and its box."""
    pairs = [(scene_id, o) for scene_id, extent in extents.items() for o in extent.objects.values()]
    trained = {o.label for scene_id, o in pairs if splits.get(scene_id) == "train"}
    table = pd.DataFrame(
        {
            "id": [f"{scene_id}/{o.id}" for scene_id, o in pairs],
            "label": [o.label for _, o in pairs],
            "nyu40": [o.nyu40 for _, o in pairs],
            "in_training": [o.label in trained for _, o in pairs],
        }
    )
    return table.join(_box_table([(extents[scene_id], [o.box]) for scene_id, o in pairs]))


def _box_table(boxes: Iterable[tuple[Extent | None, Sequence[Box]]]) -> pd.DataFrame:
    """Of the boxes of each row: the longest and the shortest side, and how far one sticks out of its scene, metres."""
    rows = [_box_facts(extent, list(group)) for extent, group in boxes]
    return pd.DataFrame(rows, columns=["longest", "shortest", "sticks_out"], dtype=float)


def _box_facts(extent: Extent | None, boxes: list[Box]) -> tuple[float | None, float | None, float | None]:
    if not boxes:
        return None, None, None
    boxes_N6 = boxes_array(boxes)
    sizes = boxes_N6[:, 3:]
    if extent is None:
        return float(sizes.max()), float(sizes.min()), None
    below = np.subtract(extent.low, boxes_N6[:, :3] - sizes / 2)
    above = boxes_N6[:, :3] + sizes / 2 - extent.high
    return float(sizes.max()), float(sizes.min()), float(max(below.max(), above.max(), 0.0))


def samples_table(
    samples: Sequence[Sample], splits: Mapping[str, Split], extents: Mapping[str, Extent], drafted: set[str]
) -> pd.DataFrame:
    """One row a sample: where it belongs, what it gives away, and its boxes."""
    shared = leaks(samples)
    table = pd.DataFrame(
        {
            "id": [s.id for s in samples],
            "task": [s.task for s in samples],
            "question": [s.question.strip() for s in samples],
            "split_of_scene": [splits.get(s.scene_id) == s.split for s in samples],
            "has_reference": [s.task == "grounding" or any(a.strip() for a in s.answers) for s in samples],
            "names_target": [_gives_away(s) for s in samples],
            "leak": [shared.get(s.id, 0.0) for s in samples],
            "asked_before": _repeated(samples),
            "box_error": [_box_error(s, extents.get(s.scene_id)) for s in samples],
            "rotation": [None if s.pose is None else float(np.linalg.norm(s.pose.rotation)) for s in samples],
            "has_draft": [None if s.split == "test" else s.id in drafted for s in samples],
        }
    )
    return table.join(_box_table([(extents.get(s.scene_id), s.boxes) for s in samples]))


def _gives_away(sample: Sample) -> bool:
    """Whether a prompt holds a box, or the identifier that it asks for."""
    prompt = " ".join([*sample.history, sample.question])
    return "<box>" in prompt or (sample.task == "grounding" and bool(identifiers(prompt)))


def _repeated(samples: Sequence[Sample]) -> list[bool]:
    """Whether the same thing was asked about the same scene before."""
    seen: set[tuple[object, ...]] = set()
    repeated = []
    for s in samples:
        asked = (s.scene_id, s.task, s.question.lower(), s.pose, s.history, s.object_ids)
        repeated.append(asked in seen)
        seen.add(asked)
    return repeated


def _box_error(sample: Sample, extent: Extent | None) -> float | None:
    """How far a target box is from that of its object; infinite where the scene has no such object."""
    if extent is None or not sample.object_ids:
        return None
    pairs = list(zip(sample.object_ids, sample.boxes, strict=False))
    if len(pairs) != len(sample.object_ids) or any(i not in extent.objects for i, _ in pairs):
        return float("inf")
    return max(float(np.abs(np.subtract(box, extent.objects[i].box)).max()) for i, box in pairs)


def drafts_table(drafts: Sequence[Draft], reasons: Sequence[str | None], samples: Mapping[str, Sample]) -> pd.DataFrame:
    """One row a draft: whether it belongs to a sample as it stands, and why it was rejected."""
    return pd.DataFrame(
        {
            "id": [d.id for d in drafts],
            "split": [d.split for d in drafts],
            "of_sample": [_belongs(d, samples.get(d.id)) for d in drafts],
            "reason": [reason or KEPT for reason in reasons],
        }
    )


def _belongs(draft: Draft, sample: Sample | None) -> bool:
    if sample is None:
        return False
    return (draft.scene_id, draft.question, draft.split) == (sample.scene_id, sample.question, sample.split)


def texts_table(
    drafts: Sequence[Draft], samples: Mapping[str, Sample], extents: Mapping[str, Extent], think: Think
) -> pd.DataFrame:
    """One row a kept text: grammar, words, steps, identifiers and answer, read again from the text as it is written."""
    return pd.DataFrame([_text_facts(d, samples[d.id], extents.get(d.scene_id), think) for d in drafts], columns=_TEXT)


_TEXT = ["id", "parses", "think_words", "num_steps", "known_objects", "answer_similarity"]


def _text_facts(draft: Draft, sample: Sample, extent: Extent | None, think: Think) -> dict[str, object]:
    reasons = think.on(sample.task)
    response = parse(draft.cot, think=reasons)
    known = set() if extent is None else set(extent.objects)
    thinking = response.thinking if response is not None and reasons else None
    return {
        "id": draft.id,
        "parses": response is not None,
        "think_words": _of(thinking, lambda text: len(text.split())),
        "num_steps": _of(thinking, lambda text: len(steps(text))),
        "known_objects": set(identifiers(draft.cot)) <= known,
        "answer_similarity": None if response is None else answer_similarity(response.answer, sample),
    }


def _of(text: str | None, count: Callable[[str], int]) -> int | None:
    return None if text is None else count(text)
