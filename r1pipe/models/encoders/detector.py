"""From voxels that vote to groups of points that may be objects.

Shape suffixes: M voxels, P points, F points of things, U patches, O groups, S members of all groups, D width. Frame:
metres, z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from r1pipe.geometry import Box, iou
from r1pipe.params.encoders import Detector

Float32 = NDArray[np.float32]
Rows = NDArray[np.intp]
MAX_DETECTIONS = 100
FOREGROUND = 0.5
"""A voxel belongs to a thing from this probability on, whatever the thing's class."""

MIN_SIDE_M = 0.01
"""Least side of a box: the points of a picture may lie in one plane."""


@dataclass(frozen=True)
class Detections:
    """What a scene holds, best score first; at most `MAX_DETECTIONS`."""

    features: Float32
    """`(O, D)`, of unit variance: from them class and colour can be read."""

    boxes: Float32
    """`(O, 6)`, centre and size."""

    scores: Float32
    """`(O,)`, 0..1."""

    labels: tuple[str, ...]


class Proposal(NamedTuple):
    """A group of points that may be an object."""

    points: Rows
    """Rows of its points."""

    box: Float32
    """`(6,)`, tight around them."""


def propose(
    xyz_P3: Float32, rgb_P3: NDArray[np.uint8] | Float32, thing_P: Float32, voted_P6: Float32, params: Detector
) -> list[Proposal]:
    """Patches of one colour, and the groups of patches that vote for the same box.

    A patch alone is often a whole object, and has its exact extent; votes join seat and back. Which of the two it is,
    the object head decides.

    Args:
        xyz_P3: the points.
        rgb_P3: their colours, 0..255.
        thing_P: the probability that a point belongs to a thing.
        voted_P6: centre and size of the box that each point votes for.
        params: thresholds.
    """
    row_F = np.flatnonzero(thing_P > FOREGROUND)
    patches = [row_F[members] for members in patch(xyz_P3[row_F], rgb_P3[row_F], params)]
    if not patches:
        return []
    voted_U6 = np.stack([voted_P6[rows].mean(axis=0) for rows in patches])
    groups = [
        np.concatenate([patches[i] for i in joined]) for joined in join(voted_U6, patches, params) if len(joined) > 1
    ]
    return [Proposal(rows, around(xyz_P3[rows])) for rows in patches + groups]


def patch(xyz_F3: Float32, rgb_F3: NDArray[np.uint8] | Float32, params: Detector) -> list[Rows]:
    """Connected points of like colour, as rows; those of fewer than `min_points` are dropped."""
    if len(xyz_F3) == 0:
        return []
    pairs = cKDTree(xyz_F3).query_pairs(params.link_distance, output_type="ndarray")
    colours_3 = rgb_F3.astype(np.float32)
    pairs = pairs[np.linalg.norm(colours_3[pairs[:, 0]] - colours_3[pairs[:, 1]], axis=1) < params.link_colour]
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(xyz_F3),) * 2)
    _, patch_F = connected_components(links, directed=False)
    ends = np.cumsum(np.bincount(patch_F))[:-1]
    return [rows for rows in np.split(np.argsort(patch_F, kind="stable"), ends) if len(rows) >= params.min_points]


def join(voted_U6: Float32, patches: Sequence[Rows], params: Detector) -> list[Rows]:
    """Patches by the box they vote for: the largest free one collects those whose votes overlap its own."""
    overlap_UU = iou(voted_U6, voted_U6)
    is_free_U = np.ones(len(patches), dtype=bool)
    groups = []
    for first in np.argsort([-len(rows) for rows in patches], kind="stable"):
        if is_free_U[first]:
            joins_U = is_free_U & (overlap_UU[first] >= params.group_iou)
            joins_U[first] = True
            is_free_U &= ~joins_U
            groups.append(np.flatnonzero(joins_U))
    return groups


def around(xyz_P3: Float32) -> Float32:
    """The tightest box around `(P, 3)` points, with positive sides."""
    box_6 = np.array(Box.around(xyz_P3), dtype=np.float32)
    box_6[3:] = box_6[3:].clip(MIN_SIDE_M)
    return box_6


def best_first(box_O6: Float32, score_O: Float32, params: Detector) -> list[int]:
    """Rows of the detections to keep: sure enough, and not overlapping a better one of whatever class."""
    ranked = [int(i) for i in np.argsort(-score_O, kind="stable") if score_O[i] >= params.score_threshold]
    overlap_OO = iou(box_O6, box_O6)
    kept: list[int] = []
    for i in ranked:
        if not (overlap_OO[i, kept] > params.nms_iou).any():
            kept.append(i)
    return kept[:MAX_DETECTIONS]
