"""The renderer: points as square splats with a z-buffer, one view a thread.

A pixel of a square splat shows the nearest of the points whose centres fall within `radius` pixels of it. So a point is
written once, to the pixel of its centre, and the minimum over a square window of that picture is the splatted one.

Colours are the points' own, never blended; of equally deep points the one of lower index wins, so a picture is the same on
every machine and with any number of threads. Threads are numba's (`NUMBA_NUM_THREADS`).

Shape suffixes: V views, H rows, W columns, P points.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from r1pipe.geometry import FloatArray
from r1pipe.views.cameras import Cameras

NOTHING = -1
"""The index of a pixel that no point covers; its depth is 0 and its colour black."""


@dataclass(frozen=True)
class Rendering:
    """What the cameras see."""

    rgb: NDArray[np.uint8]
    """`(V, H, W, 3)`."""

    depth: NDArray[np.float32]
    """`(V, H, W)`, metres along forward; 0 where there is nothing."""

    index: NDArray[np.int32]
    """`(V, H, W)`, the visible point; -1 where there is nothing."""


def render(xyz_P3: FloatArray, rgb_P3: NDArray[np.uint8], cameras: Cameras, *, radius: int) -> Rendering:
    """Draw every point as a square of `2 * radius + 1` pixels into every view.

    Points nearer than a camera's near plane, behind it, or not finite are not seen; splats are cut at the border.
    """
    count, (width, height) = len(cameras), cameras.size
    rotation_V33, position_V3 = cameras.poses[:, :3, :3], cameras.poses[:, :3, 3]
    matrix_V34 = np.empty((count, 3, 4))
    matrix_V34[:, :, :3] = cameras.intrinsics @ rotation_V33.transpose(0, 2, 1)
    matrix_V34[:, :, 3] = -np.einsum("vij,vj->vi", matrix_V34[:, :, :3], position_V3)
    rgb_VHW3 = np.zeros((count, height, width, 3), np.uint8)
    depth_VHW = np.zeros((count, height, width), np.float32)
    index_VHW = np.full((count, height, width), NOTHING, np.int32)
    points = np.ascontiguousarray(xyz_P3, np.float32), np.ascontiguousarray(rgb_P3, np.uint8)
    near_V = np.ascontiguousarray(np.broadcast_to(cameras.near, count), np.float64)
    _splat(*points, matrix_V34, near_V, radius, rgb_VHW3, depth_VHW, index_VHW)
    return Rendering(rgb_VHW3, depth_VHW, index_VHW)


@numba.njit(parallel=True, cache=True, nogil=True)
def _splat(
    xyz_P3: NDArray[np.float32],
    rgb_P3: NDArray[np.uint8],
    matrix_V34: NDArray[np.float64],
    near_V: NDArray[np.float64],
    radius: int,
    rgb_VHW3: NDArray[np.uint8],
    depth_VHW: NDArray[np.float32],
    index_VHW: NDArray[np.int32],
) -> None:
    """Fill the three images; `matrix` maps scene points to (u * depth, v * depth, depth)."""
    for view in numba.prange(len(matrix_V34)):
        height, width = index_VHW.shape[1:]
        # The margin holds points outside the image whose splats reach into it.
        keys = np.full((height + 2 * radius, width + 2 * radius), _CLEAR, np.int64)
        _project(xyz_P3, matrix_V34[view], near_V[view], radius, keys)
        _colour(rgb_P3, _nearest(keys, radius), rgb_VHW3[view], depth_VHW[view], index_VHW[view])


_CLEAR = np.iinfo(np.int64).max
"""The key of a pixel without a point. Keys are the bits of a depth above the index of a point: positive floats are ordered
as their bits are, so the least key is the nearest point, and the one of lower index among equals."""


@numba.njit(cache=True, nogil=True)
def _project(
    xyz_P3: NDArray[np.float32], matrix_34: NDArray[np.float64], near: float, radius: int, keys: NDArray[np.int64]
) -> None:
    """Put the least key of the points in each pixel there; `keys` has a margin of `radius`."""
    height, width = keys.shape
    m = matrix_34
    for point in range(len(xyz_P3)):
        x, y, z = xyz_P3[point, 0], xyz_P3[point, 1], xyz_P3[point, 2]
        depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
        if not (near < depth < np.inf):
            continue
        u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / depth + 0.5 + radius
        v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / depth + 0.5 + radius
        # Checked as floats: far outside the image the cast to an integer would wrap.
        if 0 <= u < width and 0 <= v < height:
            key = np.int64(np.float32(depth).view(np.int32)) << 32 | point
            row, column = int(v), int(u)
            if key < keys[row, column]:
                keys[row, column] = key


@numba.njit(cache=True, nogil=True)
def _nearest(keys: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    """The minimum over windows of `2 * radius + 1`, rows first, then columns; the margin goes."""
    height, width = keys.shape[0] - 2 * radius, keys.shape[1] - 2 * radius
    across = keys[:, :width].copy()
    for i in range(len(across)):
        for shift in range(1, 2 * radius + 1):
            for j in range(width):
                across[i, j] = min(across[i, j], keys[i, j + shift])
    least = across[:height].copy()
    for i in range(height):
        for shift in range(1, 2 * radius + 1):
            for j in range(width):
                least[i, j] = min(least[i, j], across[i + shift, j])
    return least


@numba.njit(cache=True, nogil=True)
def _colour(
    rgb_P3: NDArray[np.uint8],
    keys: NDArray[np.int64],
    rgb_HW3: NDArray[np.uint8],
    depth_HW: NDArray[np.float32],
    index_HW: NDArray[np.int32],
) -> None:
    """Read depth, index and colour off the keys."""
    height, width = keys.shape
    for i in range(height):
        for j in range(width):
            if keys[i, j] != _CLEAR:
                point = np.int32(keys[i, j] & 0xFFFFFFFF)
                depth_HW[i, j] = np.int32(keys[i, j] >> 32).view(np.float32)
                index_HW[i, j] = point
                rgb_HW3[i, j, 0] = rgb_P3[point, 0]
                rgb_HW3[i, j, 1] = rgb_P3[point, 1]
                rgb_HW3[i, j, 2] = rgb_P3[point, 2]
