"""A cloud as the point encoder reads it: averaged on a grid, and its proposals as groups of members.

Shape suffixes: P points, M voxels, S members of all groups, O groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import ModelError
from r1pipe.models.encoders.detector import Proposal
from r1pipe.models.ptv3.serialization import MAX_DEPTH

Float32 = NDArray[np.float32]
IN_CHANNELS = 9
MAX_MEMBERS = 128
"""Points that describe a group, at most: an even choice of them tells its shape as well as all do."""

_FLOOR_PERCENTILE = 1.0


class Grid(NamedTuple):
    """A cloud on a grid, one row a voxel that holds points."""

    cell: NDArray[np.int64]
    """`(M, 3)`, from 0 on."""

    xyz: Float32
    """`(M, 3)`, mean of the points, metres."""

    features: Float32
    """`(M, 9)`: mean colour (-1..1), metres from the middle of the cloud, height above its floor in metres, where in its
    cell the mean lies (-1..1). Attention cannot tell where a voxel is but from these."""

    of_point: NDArray[np.intp]
    """`(P,)`, the voxel of each point."""

    first: NDArray[np.intp]
    """`(M,)`, the first point of each voxel."""

    floor: float
    """Height of the floor, metres."""


def voxelise(xyz_P3: Float32, rgb_P3: NDArray[np.uint8] | Float32, size: float) -> Grid:
    """Average a cloud's points in cubes of `size` metres.

    The floor is the first percentile of height: a few stray points below it do not move it.

    Raises:
        ModelError: if the cloud is empty, or has more voxels along an axis than Point Transformer v3 has codes for.
    """
    if len(xyz_P3) == 0:
        raise ModelError("Expected points to voxelise, found none.")
    low_3 = np.floor(xyz_P3.min(axis=0) / size)
    cell_P3 = (np.floor(xyz_P3 / size) - low_3).astype(np.int64)
    if cell_P3.max() >= 2**MAX_DEPTH:
        extent = float(np.ptp(xyz_P3, axis=0).max())
        raise ModelError(
            f"Expected at most {2**MAX_DEPTH:,} voxels along an axis, found {cell_P3.max() + 1:,}: "
            f"{extent:g} m in voxels of {size:g} m."
        )
    key_P = np.ravel_multi_index(tuple(cell_P3.T), tuple(cell_P3.max(axis=0) + 1))
    _, first_M, of_point_P = np.unique(key_P, return_index=True, return_inverse=True)
    count_M1 = np.bincount(of_point_P)[:, None]
    values = np.concatenate([xyz_P3, rgb_P3], axis=1, dtype=np.float64)
    mean_M6 = np.stack([np.bincount(of_point_P, column) for column in values.T], axis=1) / count_M1
    xyz_M3, cell_M3 = mean_M6[:, :3], cell_P3[first_M]
    floor = float(np.percentile(xyz_P3[:, 2], _FLOOR_PERCENTILE))
    middle_3 = [*((xyz_P3.min(axis=0) + xyz_P3.max(axis=0)) / 2)[:2], floor]
    within_M3 = 2 * (xyz_M3 / size - low_3 - cell_M3) - 1
    features_M9 = np.concatenate([mean_M6[:, 3:] / 127.5 - 1, xyz_M3 - middle_3, within_M3], axis=1)
    return Grid(cell_M3, xyz_M3.astype(np.float32), features_M9.astype(np.float32), of_point_P, first_M, floor)


class Members(NamedTuple):
    """The groups of one cloud, as arrays; see `heads.Groups`."""

    voxels: NDArray[np.intp]
    members: Float32
    counts: NDArray[np.int64]
    shapes: Float32


def gather(
    xyz_P3: Float32,
    rgb_P3: NDArray[np.uint8] | Float32,
    grid: Grid,
    voted_M6: Float32,
    proposals: Sequence[Proposal],
) -> Members:
    """What the object head reads of each proposal, at least one.

    Args:
        xyz_P3: the points, metres.
        rgb_P3: their colours, 0..255.
        grid: their voxels.
        voted_M6: centre and size of the box that each voxel votes for.
        proposals: groups of points.
    """
    chosen = [one.points[:: -(-len(one.points) // MAX_MEMBERS)] for one in proposals]
    counts_O = np.array([len(rows) for rows in chosen])
    row_S, group_S = np.concatenate(chosen), np.repeat(np.arange(len(chosen)), counts_O)
    box_O6 = np.stack([one.box for one in proposals])
    size_O3 = box_O6[:, 3:].clip(0.1)
    within_S3 = 2 * (xyz_P3[row_S] - box_O6[group_S, :3]) / size_O3[group_S]
    colour_S3 = rgb_P3[row_S] / np.float32(127.5) - 1
    members = [within_S3, xyz_P3[row_S, 2:] - grid.floor, box_O6[group_S, 3:], colour_S3]
    voxel_S = grid.of_point[row_S]
    starts_O = np.cumsum(counts_O) - counts_O
    mean = np.add.reduceat(np.concatenate([colour_S3, voted_M6[voxel_S]], axis=1), starts_O) / counts_O[:, None]
    bottom_O1, height_O1 = box_O6[:, 2:3] - box_O6[:, 5:] / 2 - grid.floor, box_O6[:, 5:]
    shapes = [
        mean[:, :3],
        np.sort(box_O6[:, 3:5], axis=1),
        *(height_O1, bottom_O1, bottom_O1 + height_O1),
        np.log([[len(one.points) / 100] for one in proposals]),
        (mean[:, 3:6] - box_O6[:, :3]) / size_O3,
        np.log(mean[:, 6:].clip(0.01) / size_O3),
    ]
    return Members(
        voxel_S,
        np.concatenate(members, axis=1).astype(np.float32),
        counts_O,
        np.concatenate(shapes, axis=1).astype(np.float32),
    )
