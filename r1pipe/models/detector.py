"""From voxels that each point at their object to a list of boxes.

Shape suffixes: M voxels, P points, F voxels of objects, K classes, O detections, D width. Frame: metres, z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from r1pipe.geometry import Box, iou
from r1pipe.params import Detector
from r1pipe.scenes.colours import NAMED

Float32 = NDArray[np.float32]
MAX_DETECTIONS = 100
FOREGROUND = 0.5
"""A voxel belongs to an object from this probability on, whatever the object's class."""

CENTRE_CELL_M = 0.15
"""Cell of the grid on which voted centres are counted."""

MIN_SEEDS = 2
"""Votes in a cell that may start an object."""

BORDER_M = 0.05
"""How far from the voted box a point may lie and still belong to the object."""


@dataclass(frozen=True)
class Detections:
    """What a scene holds, best score first; at most `MAX_DETECTIONS`."""

    features: Float32
    """`(O, D)`, backbone features averaged over each object's voxels."""

    boxes: Float32
    """`(O, 6)`, centre and size."""

    scores: Float32
    """`(O,)`, 0..1."""

    labels: tuple[str, ...]


class Votes(NamedTuple):
    """What the heads say of each voxel."""

    classes: Tensor
    """`(M, K)`, logits."""

    box: Tensor
    """`(M, 6)`: the way to the centre of its object, metres, and the logarithms of that object's size."""

    colour: Tensor
    """`(M, C)`, logits of the named colours: its object's mean colour, so that features keep it."""

    rgb: Tensor
    """`(M, 3)`, the same as numbers, 0..1."""


class Heads(nn.Module):
    """Per voxel: class, box and colour of the object it belongs to."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, num_classes)
        self.box = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 6))
        self.colour = nn.Linear(width, len(NAMED))
        self.rgb = nn.Linear(width, 3)

    def forward(self, feat_MD: Tensor) -> tuple[Tensor, Votes]:
        """Normalised features `(M, D)` and what they say."""
        feat_MD = self.norm(feat_MD)
        votes = Votes(self.classes(feat_MD), self.box(feat_MD), self.colour(feat_MD), self.rgb(feat_MD))
        return feat_MD, votes


class Voxels(NamedTuple):
    """The voxels of a scene as the detector sees them."""

    xyz: Float32
    """`(M, 3)`, mean of each voxel's points."""

    of_point: NDArray[np.intp]
    """`(P,)`, the voxel of each point."""

    features: Float32
    """`(M, D)`."""

    probabilities: Float32
    """`(M, K)`; class 0 is what belongs to no object."""

    box: Float32
    """`(M, 6)`, centre and size of the object that each voxel votes for."""


class Candidate(NamedTuple):
    """One group of voxels as an object."""

    members: NDArray[np.intp]
    """Rows of its voxels."""

    box: NDArray[np.float64]
    score: float
    label: int


def detect(
    voxels: Voxels, xyz_P3: Float32, names: Sequence[str], is_thing_K: NDArray[np.bool_], params: Detector
) -> Detections:
    """Group the voxels that vote for the same box, and put a box around the points of each group.

    Args:
        voxels: votes of the scene's voxels.
        xyz_P3: the scene's points.
        names: the K classes.
        is_thing_K: which classes are objects, not parts of the room.
        params: thresholds.
    """
    thing_MK = voxels.probabilities * is_thing_K
    row_F = np.flatnonzero(thing_MK.sum(axis=1) > FOREGROUND)
    groups = [row_F[members] for members in group(voxels.box[row_F], thing_MK[row_F].max(axis=1), params)]
    points = split(voxels.of_point, groups)
    candidates = [
        _candidate(members, voxels, xyz_P3[rows], thing_MK) for members, rows in zip(groups, points, strict=True)
    ]
    kept = suppress([c for c in candidates if c.score >= params.score_threshold], params.nms_iou)
    features = [voxels.features[c.members].mean(axis=0) for c in kept]
    return Detections(
        features=np.array(features, np.float32).reshape(-1, voxels.features.shape[1]),
        boxes=np.array([c.box for c in kept], np.float32).reshape(-1, 6),
        scores=np.array([c.score for c in kept], np.float32),
        labels=tuple(names[c.label] for c in kept),
    )


def group(box_F6: Float32, weight_F: Float32, params: Detector) -> list[NDArray[np.intp]]:
    """Voxels by the box they vote for, as rows.

    Where many centres fall into one cell of a grid, their mean box collects every free voxel whose own vote overlaps
    it. Distance to a centre alone would need a radius for each size of object; overlap has no scale.
    """
    _, bin_F = np.unique(np.floor(box_F6[:, :3] / CENTRE_CELL_M).astype(np.int64), axis=0, return_inverse=True)
    bin_F = bin_F.reshape(-1)
    rows_by_bin = np.split(np.argsort(bin_F, kind="stable"), np.cumsum(np.bincount(bin_F))[:-1])
    groups, is_free_F = [], np.ones(len(box_F6), dtype=bool)
    for number in np.argsort(-np.bincount(bin_F, weights=weight_F), kind="stable"):
        seeds = rows_by_bin[number][is_free_F[rows_by_bin[number]]]
        if len(seeds) < MIN_SEEDS:
            continue
        free = np.flatnonzero(is_free_F)
        members = free[iou(box_F6[seeds].mean(axis=0), box_F6[free])[0] >= params.group_iou]
        is_free_F[members] = is_free_F[seeds] = False
        if len(members) >= params.min_voxels:
            groups.append(members)
    return groups


def split(of_point_P: NDArray[np.intp], groups: Sequence[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
    """The points of each group of voxels, as rows."""
    group_M = np.full(int(of_point_P.max(initial=-1)) + 1, len(groups))
    for number, members in enumerate(groups):
        group_M[members] = number
    group_P = group_M[of_point_P]
    ends = np.cumsum(np.bincount(group_P, minlength=len(groups) + 1))
    return np.split(np.argsort(group_P, kind="stable"), ends)[: len(groups)]


def _candidate(members: NDArray[np.intp], voxels: Voxels, xyz_P3: Float32, thing_MK: Float32) -> Candidate:
    mean_K = thing_MK[members].mean(axis=0)
    label = int(mean_K.argmax())
    box = around(xyz_P3, np.median(voxels.box[members], axis=0))
    return Candidate(members, box, float(mean_K[label]), label)


def around(xyz_P3: Float32, voted_6: Float32) -> NDArray[np.float64]:
    """The tightest box around the points that lie in the voted box or not far from it.

    Annotated boxes are tight around points; voxels at a border hold points of two objects, and the vote tells which.
    """
    low, high = voted_6[:3] - voted_6[3:] / 2 - BORDER_M, voted_6[:3] + voted_6[3:] / 2 + BORDER_M
    inside = xyz_P3[((xyz_P3 >= low) & (xyz_P3 <= high)).all(axis=1)]
    box = Box.around(inside) if len(inside) else Box(*voted_6.tolist())
    return np.array(box if box.is_proper else voted_6, dtype=np.float64)


def suppress(candidates: Sequence[Candidate], threshold: float) -> list[Candidate]:
    """Best first; one that overlaps a better one beyond the threshold goes, of whatever class."""
    ranked = sorted(candidates, key=lambda c: -c.score)[:MAX_DETECTIONS]
    overlap_OO = iou([c.box for c in ranked], [c.box for c in ranked])
    kept: list[int] = []
    for i in range(len(ranked)):
        if not (overlap_OO[i, kept] > threshold).any():
            kept.append(i)
    return [ranked[i] for i in kept]
