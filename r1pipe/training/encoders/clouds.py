"""Annotated scenes as examples for the point encoder: classes, augmentation, targets.

Shape suffixes: P points, M voxels, T voxels of things, J objects of a scene.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1pipe.datasets.nyu40 import STRUCTURE
from r1pipe.errors import DataError
from r1pipe.geometry import boxes_array, iou
from r1pipe.models.encoders.cloud import Grid, voxelise
from r1pipe.models.encoders.detector import Proposal, around
from r1pipe.models.encoders.points import Settings, class_name
from r1pipe.params.encoders import Detector
from r1pipe.scenes.colours import NAMED, colour_name
from r1pipe.scenes.scene import Scene

NOTHING = "nothing"
"""Class 0: points of no object, and objects of rare classes."""

STRUCTURE_WEIGHT = 0.3
"""Of a voxel of the room itself, against an average one of a thing: the room has most of the voxels."""

IGNORED = -100
"""Target of cross-entropy that asks nothing."""

MATCHED, MISSED = 0.5, 0.4
"""IoU from which a proposal is an object, and below which it is none."""

_COLOURS = tuple(NAMED)
_SCALE = 0.1
_BRIGHTNESS = 0.06
_TINT = 5.0
"""Augmentation: at most so much longer an axis, brighter a scene, and (0..255) stronger a channel; names survive it."""


class Targets(NamedTuple):
    """What the heads should say of each voxel of a batch."""

    classes: Tensor
    """`(M,)`, int64."""

    weights: Tensor
    """`(M,)`: how much a voxel counts."""

    things: Tensor
    """`(T,)`, the voxels of things; the targets below are theirs."""

    box: Tensor
    """`(T, 6)`: the way to the centre, metres, and the logarithms of the size."""

    size: Tensor
    """`(T, 3)`, metres."""


class ObjectTargets(NamedTuple):
    """What the object head should say of each group of voxels."""

    classes: Tensor
    """`(O,)`, int64; 0 where it is no object, `IGNORED` where it is half of one."""

    colour: Tensor
    """`(O,)`, int64, row in `NAMED`; `IGNORED` where it is no object."""

    rgb: Tensor
    """`(O, 3)`, 0..1."""


class Batch(NamedTuple):
    """A step's clouds."""

    examples: list["Example"]
    grids: list[Grid]
    targets: Targets


@dataclass(frozen=True)
class Example:
    """A scene with what is asked of its points."""

    xyz: NDArray[np.float32]
    rgb: NDArray[np.float32]
    row: NDArray[np.intp]
    """`(P,)`, row of each point's object in the arrays below; J for none."""

    classes: NDArray[np.int64]
    """`(J + 1,)`."""

    is_thing: NDArray[np.bool_]
    """`(J + 1,)`."""

    box: NDArray[np.float64]
    """`(J + 1, 6)`."""

    mean_rgb: NDArray[np.float64]
    """`(J + 1, 3)`, 0..1."""

    colour: NDArray[np.int64]
    """`(J + 1,)`."""


def vocabulary(scenes: Sequence[Scene], params: Detector) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes of the scenes, `NOTHING` first, and those of them that are structure: wall, floor, ceiling.

    Raises:
        DataError: if no class of things occurs in `min_class_scenes` scenes.
    """
    present = [{(class_name(o, params), o.nyu40 in STRUCTURE) for o in scene.objects} for scene in scenes]
    counts = Counter(pair for pairs in present for pair in pairs if pair[0])
    frequent = sorted(pair for pair, count in counts.items() if count >= params.min_class_scenes)
    if all(is_structure for _, is_structure in frequent):
        raise DataError(
            f"Expected objects of some class in at least {params.min_class_scenes} train scenes (detector."
            f"min_class_scenes), found none among {len(scenes)} scenes and {len(counts)} classes."
        )
    return (NOTHING, *(name for name, _ in frequent)), tuple(name for name, is_structure in frequent if is_structure)


def example(scene: Scene, settings: Settings) -> Example:
    """What the scene's annotations ask of its points."""
    number = {name: i for i, name in enumerate(settings.classes)}
    ids = np.array([o.id for o in scene.objects], dtype=np.int64)
    row_P = np.full(int(max(ids.max(initial=-1), scene.instance.max(initial=-1))) + 2, len(ids))
    row_P[ids] = np.arange(len(ids))
    row_P = row_P[scene.instance]
    counts_J1 = np.maximum(np.bincount(row_P, minlength=len(ids) + 1), 1)[:, None]
    sums = [np.bincount(row_P, channel, minlength=len(ids) + 1) for channel in scene.rgb.T.astype(np.float64)]
    mean_J3 = np.stack(sums, axis=1) / counts_J1
    classes_J = np.array([number.get(class_name(o, settings.detector), 0) for o in scene.objects] + [0])
    structure = [number[name] for name in settings.structure]
    return Example(
        xyz=scene.xyz,
        rgb=scene.rgb.astype(np.float32),
        row=row_P,
        classes=classes_J,
        is_thing=(classes_J > 0) & ~np.isin(classes_J, structure),
        box=np.concatenate([boxes_array([o.box for o in scene.objects]), np.ones((1, 6))]),
        mean_rgb=mean_J3 / 255,
        colour=np.array([_COLOURS.index(colour_name(rgb)) for rgb in mean_J3]),
    )


def augmented(whole: Example, rng: np.random.Generator) -> Example:
    """The example turned by quarters, mirrored, stretched, in another light, its points in another sequence.

    Boxes stay axis-aligned, hence exact. Mean colours stay those of the scan, for its light is not the object's.
    """
    turn_33 = np.eye(3)[[1, 0, 2] if rng.random() < 0.5 else [0, 1, 2]]
    turn_33 = turn_33 * [*rng.choice([-1.0, 1.0], 2), 1.0] * rng.uniform(1 - _SCALE, 1 + _SCALE, (3, 1))
    shift_3 = rng.uniform(0, 1, 3)
    light = whole.rgb * rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS) + rng.uniform(-_TINT, _TINT, 3)
    shuffled_P = rng.permutation(len(whole.xyz))
    return replace(
        whole,
        xyz=(whole.xyz @ turn_33.T + shift_3).astype(np.float32)[shuffled_P],
        rgb=light.clip(0, 255).astype(np.float32)[shuffled_P],
        row=whole.row[shuffled_P],
        box=np.concatenate([whole.box[:, :3] @ turn_33.T + shift_3, whole.box[:, 3:] @ np.abs(turn_33).T], axis=1),
    )


def batches(
    examples: Sequence[Example], *, voxel_size: float, batch_size: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Batches without end: every example once before any comes again."""
    queue: list[int] = []
    while True:
        while len(queue) < batch_size:
            queue += rng.permutation(len(examples)).tolist()
        chosen = [augmented(examples[queue.pop(0)], rng) for _ in range(batch_size)]
        grids = [voxelise(one.xyz, one.rgb, voxel_size) for one in chosen]
        yield Batch(chosen, grids, targets(chosen, grids))


def targets(examples: Sequence[Example], grids: Sequence[Grid]) -> Targets:
    """The targets of a batch: each voxel speaks for one of its points, the first."""
    parts = [_targets(one, grid) for one, grid in zip(examples, grids, strict=True)]
    starts = np.cumsum([0] + [len(grid.cell) for grid in grids])
    things = np.concatenate([part["things"] + start for part, start in zip(parts, starts, strict=False)])
    rest = {name: np.concatenate([part[name] for part in parts]) for name in Targets._fields if name != "things"}
    floats = ("weights", "box", "size")
    tensors = {name: torch.from_numpy(v.astype(np.float32) if name in floats else v) for name, v in rest.items()}
    return Targets(things=torch.from_numpy(things), **tensors)


def _targets(one: Example, grid: Grid) -> dict[str, NDArray[np.generic]]:
    row_M = one.row[grid.first]
    is_thing_M = one.is_thing[row_M]
    voxels_J = np.maximum(np.bincount(row_M, minlength=len(one.classes)), 1)
    weight_M = voxels_J[row_M] ** -0.5
    weight_M /= weight_M[is_thing_M].mean() if is_thing_M.any() else 1.0
    row_T = row_M[is_thing_M]
    size_T3 = one.box[row_T, 3:]
    return {
        "classes": one.classes[row_M],
        "weights": np.where(is_thing_M, weight_M, STRUCTURE_WEIGHT),
        "things": np.flatnonzero(is_thing_M),
        "box": np.concatenate([one.box[row_T, :3] - grid.xyz[is_thing_M], np.log(size_T3.clip(0.01))], axis=1),
        "size": size_T3,
    }


def annotated(one: Example) -> list[Proposal]:
    """The annotated things of a scene as a perfect detector would group their points."""
    rows = np.split(
        np.argsort(one.row, kind="stable"), np.cumsum(np.bincount(one.row, minlength=len(one.classes)))[:-1]
    )
    return [Proposal(rows[j], around(one.xyz[rows[j]])) for j in np.flatnonzero(one.is_thing) if len(rows[j])]


def object_targets(examples: Sequence[Example], proposals: Sequence[Sequence[Proposal]]) -> ObjectTargets:
    """Each proposal stands for the thing whose box it overlaps most: well enough, not at all, or not worth teaching."""
    parts = [_object_targets(one, of_one) for one, of_one in zip(examples, proposals, strict=True)]
    return ObjectTargets(*(torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)))


def _object_targets(one: Example, proposals: Sequence[Proposal]) -> tuple[NDArray[np.generic], ...]:
    things = np.flatnonzero(one.is_thing)
    boxes_O6 = np.array([p.box for p in proposals]).reshape(-1, 6)
    overlap_OJ = np.concatenate([iou(boxes_O6, one.box[things]), np.zeros((len(boxes_O6), 1))], axis=1)
    best_O, row_O = overlap_OJ.max(axis=1), np.append(things, -1)[overlap_OJ.argmax(axis=1)]
    is_match_O = best_O >= MATCHED
    classes_O = np.where(is_match_O, one.classes[row_O], np.where(best_O < MISSED, 0, IGNORED))
    return classes_O, np.where(is_match_O, one.colour[row_O], IGNORED), one.mean_rgb[row_O].astype(np.float32)
