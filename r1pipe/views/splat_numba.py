"""The renderer on the CPU: one view a thread.

Every pixel holds a key: the bits of a depth above the index of a point. Positive floats are ordered as their bits are, so the
least key is the nearest point, and the one of lower index among equals.

Holes are filled by a grey closing of the z-buffer (Serra, Image Analysis and Mathematical Morphology, 1982), a minimum over
squares and then a maximum: a pixel's closed key is the farthest of the nearest points in each square that holds the pixel. A
plane's picture is its own closing, however steep; only what is deeper than its surroundings on opposite sides differs.

Shape suffixes: V views, H rows, W columns, P points.
"""

import numba
import numpy as np
from numpy.typing import NDArray

CLEAR = np.iinfo(np.int64).max
"""The key of a pixel without a point."""

HOLE_RATIO = 1.05
"""A pixel is a hole if it is so many times as deep as its closing: more than the relief of a surface, less than a table above
the floor."""


@numba.njit(parallel=True, cache=True, nogil=True)
def splat(
    xyz_P3: NDArray[np.float32],
    rgb_P3: NDArray[np.uint8],
    matrix_V34: NDArray[np.float64],
    near_V: NDArray[np.float64],
    radius: int,
    gap: int,
    rgb_VHW3: NDArray[np.uint8],
    depth_VHW: NDArray[np.float32],
    index_VHW: NDArray[np.int32],
) -> None:
    """Fill the three images; `matrix` maps scene points to (u * depth, v * depth, depth).

    Holes up to `gap` pixels wide are filled.
    """
    for view in numba.prange(len(matrix_V34)):
        height, width = index_VHW.shape[1:]
        # The margin holds points outside the image whose splats, or squares of the closing, reach into it.
        margin = radius + gap
        keys = np.full((height + 2 * margin, width + 2 * margin), CLEAR, np.int64)
        _project(xyz_P3, matrix_V34[view], near_V[view], margin, keys)
        keys = _fill(_least(keys, 2 * radius + 1), gap)
        _colour(rgb_P3, keys, rgb_VHW3[view], depth_VHW[view], index_VHW[view])


@numba.njit(cache=True, nogil=True)
def _project(
    xyz_P3: NDArray[np.float32], matrix_34: NDArray[np.float64], near: float, margin: int, keys: NDArray[np.int64]
) -> None:
    """Put the least key of the points in each pixel there; `keys` has a margin of so many pixels around the image."""
    height, width = keys.shape
    m = matrix_34
    for point in range(len(xyz_P3)):
        x, y, z = xyz_P3[point, 0], xyz_P3[point, 1], xyz_P3[point, 2]
        depth = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
        if not (near < depth < np.inf):
            continue
        u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / depth + 0.5 + margin
        v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / depth + 0.5 + margin
        # Checked as floats: far outside the image the cast to an integer would wrap.
        if 0 <= u < width and 0 <= v < height:
            key = np.int64(np.float32(depth).view(np.int32)) << 32 | point
            row, column = int(v), int(u)
            if key < keys[row, column]:
                keys[row, column] = key


@numba.njit(cache=True, nogil=True)
def _least(keys: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The minimum over every square of `side` pixels inside the picture, rows first, then columns."""
    height, width = keys.shape[0] - side + 1, keys.shape[1] - side + 1
    across = keys[:, :width].copy()
    for i in range(len(across)):
        for shift in range(1, side):
            for j in range(width):
                across[i, j] = min(across[i, j], keys[i, j + shift])
    least = across[:height].copy()
    for i in range(height):
        for shift in range(1, side):
            for j in range(width):
                least[i, j] = min(least[i, j], across[i + shift, j])
    return least


@numba.njit(cache=True, nogil=True)
def _fill(keys: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
    """The picture inside a margin of `gap` pixels, holes up to so wide filled from what closes over them."""
    if gap == 0:
        return keys
    # The maximum is the minimum of the negatives; none is the least integer, whose negative would be itself.
    filled = -_least(-_least(keys, gap + 1), gap + 1)
    for i in range(filled.shape[0]):
        for j in range(filled.shape[1]):
            key = keys[i + gap, j + gap]
            if key != CLEAR and not _depth(key) > HOLE_RATIO * _depth(filled[i, j]):
                filled[i, j] = key
    return filled


@numba.njit(cache=True, nogil=True)
def _depth(key: int) -> float:
    """A key's depth."""
    return np.float64(np.int32(key >> 32).view(np.float32))


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
            if keys[i, j] != CLEAR:
                point = np.int32(keys[i, j] & 0xFFFFFFFF)
                depth_HW[i, j] = _depth(keys[i, j])
                index_HW[i, j] = point
                rgb_HW3[i, j, 0] = rgb_P3[point, 0]
                rgb_HW3[i, j, 1] = rgb_P3[point, 1]
                rgb_HW3[i, j, 2] = rgb_P3[point, 2]
