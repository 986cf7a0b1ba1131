"""What the expectations are about: tables with one row a file, scene, object, draft and kept text.

Each column is a plain fact that one standard expectation can judge; boxes and coordinates are metres, scene frame.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.manifest import Manifest, SceneEntry, room_of
from r1pipe.datasets.scannet import MESH
from r1pipe.geometry import Box, boxes_array
from r1pipe.params.run import Think
from r1pipe.params.section import Split
from r1pipe.response import identifiers, parse
from r1pipe.scenes import Scene, SceneObject
from r1pipe.validation.figures import Figure
from r1pipe.validation.filters import answer_similarity, steps

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


def scenes_table(manifest: Manifest, extents: Mapping[str, Extent]) -> pd.DataFrame:
    """One row a scene of the manifest: in how many splits its room is, its mesh, and a room of the very same objects.

    A column `…_splits` counts, its neighbour `…_scans` names the scans that are meant.
    """
    splits = manifest.splits
    ids = list(splits)
    table = pd.DataFrame(
        {
            "id": ids,
            "split": list(splits.values()),
            "prepared": [scene_id in extents for scene_id in ids],
            "span": [_span(extents.get(scene_id)) for scene_id in ids],
        }
    )
    keys: dict[str, list[str]] = {
        "room": [room_of(scene_id) for scene_id in ids],
        "mesh": [_mesh(location.scene) for location in manifest.locations()],
        "layout": [_layout(scene_id, extents) for scene_id in ids],
    }
    for name, key in keys.items():
        scans: dict[str, list[str]] = defaultdict(list)
        for scene_id, group in zip(ids, key, strict=True):
            scans[group].append(scene_id)
        table[f"{name}_splits"] = [len({splits[scene_id] for scene_id in scans[group]}) for group in key]
        table[f"{name}_scans"] = [_places(scans[group], splits) for group in key]
    return table


def _mesh(scene: SceneEntry) -> str:
    """The SHA-256 of a scan's mesh; its id where it has none."""
    return next((file.sha256 for file in scene.files if file.path.endswith(MESH)), scene.id)


def _places(scene_ids: Sequence[str], splits: Mapping[str, Split]) -> str:
    """The first scan of each split, and the split."""
    first = list({splits[scene_id]: scene_id for scene_id in reversed(scene_ids)}.values())[::-1]
    return " and ".join(f"{scene_id} in {splits[scene_id]}" for scene_id in first)


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
    return table.join(box_table([(extents[scene_id], [o.box]) for scene_id, o in pairs]))


def box_table(boxes: Iterable[tuple[Extent | None, Sequence[Box]]]) -> pd.DataFrame:
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


def drafts_table(drafts: Sequence[Draft], reasons: Sequence[str | None], samples: Mapping[str, Sample]) -> pd.DataFrame:
    """One row a draft: whether it belongs to a sample as it stands, and why it was rejected."""
    return pd.DataFrame(
        {
            "id": [d.id for d in drafts],
            "split": [d.split for d in drafts],
            "of_sample": [_belongs(d, samples.get(d.id)) for d in drafts],
            "reason": [reason or KEPT for reason in reasons],
            "fault_kept": [d.fault is not None and r is None for d, r in zip(drafts, reasons, strict=True)],
        }
    )


def filters_table(figures: Iterable[Figure]) -> pd.DataFrame:
    """One row a kind of fault: the share of it that its filter finds, and of what the filter rejects with reason."""
    rows = [(figure.fault, figure.recall.value, figure.precision.value) for figure in figures]
    return pd.DataFrame(rows, columns=["id", "recall", "precision"])


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
