"""The renderer: points as square splats with a z-buffer, on numba's threads or, the same pictures, on a GPU.

A pixel of a square splat shows the nearest of the points whose centres fall within `radius` pixels of it. So a point is
written once, to the pixel of its centre, and the minimum over a square window of that picture is the splatted one.

A point stands alone where a scan is sparse or a camera close, and what is behind shows between the splats. With `fill_holes` a
pixel is a hole where every square of `2 * radius + 2` pixels that holds it also holds one that is nearer by more than 5 %
(`splat_numba.HOLE_RATIO`), empty pixels being infinitely deep. It gets, of the nearest point in each such square, the farthest,
so that nothing in front of the surface grows into it. So a gap as wide as a splat, `2 * radius + 1`, is closed and a wider one is not, a
true one alike; and what lies beside a surface, with nearer pixels on one side only, stays as it is: the edge does not move.

Colours are the points' own, never blended; of equally deep points the one of lower index wins, so a picture is the same on
every machine, with any number of threads and from either backend. Threads are numba's (`NUMBA_NUM_THREADS`).

Shape suffixes: V views, H rows, W columns, P points.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from r1pipe.geometry import FloatArray
from r1pipe.views import splat_numba
from r1pipe.views.cameras import Cameras

Backend = Literal["numba", "torch"]

NOTHING = -1
"""The index of a pixel that no point covers; its depth is 0 and its colour black."""

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""What a driver for CUDA leaves: Linux, and Linux inside Windows."""


@dataclass(frozen=True)
class Rendering:
    """What the cameras see."""

    rgb: NDArray[np.uint8]
    """`(V, H, W, 3)`."""

    depth: NDArray[np.float32]
    """`(V, H, W)`, metres along forward; 0 where there is nothing."""

    index: NDArray[np.int32]
    """`(V, H, W)`, the visible point; -1 where there is nothing."""


def render(
    xyz_P3: FloatArray,
    rgb_P3: NDArray[np.uint8],
    cameras: Cameras,
    *,
    radius: int,
    fill_holes: bool = False,
    backend: Backend | None = None,
) -> Rendering:
    """Draw every point as a square of `2 * radius + 1` pixels into every view.

    Points nearer than a camera's near plane, behind it, or not finite are not seen; splats are cut at the border.
    Holes are filled, if at all, by the rule at the head of this file.

    Backend `torch` is the GPU, or the CPU where there is none; None is `torch` with a GPU and `numba` without.
    """
    count, (width, height) = len(cameras), cameras.size
    result = Rendering(
        np.zeros((count, height, width, 3), np.uint8),
        np.zeros((count, height, width), np.float32),
        np.full((count, height, width), NOTHING, np.int32),
    )
    points = np.ascontiguousarray(xyz_P3, np.float32), np.ascontiguousarray(rgb_P3, np.uint8)
    near_V = np.ascontiguousarray(np.broadcast_to(cameras.near, count), np.float64)
    gap = 2 * radius + 1 if fill_holes else 0
    splat = _splat(backend or _fastest())
    splat(*points, _matrices(cameras), near_V, radius, gap, result.rgb, result.depth, result.index)
    return result


def _splat(backend: Backend) -> Callable[..., None]:
    if backend == "numba":
        return splat_numba.splat
    # Late: views on a CPU need no torch, which takes seconds to import.
    from r1pipe.views import splat_torch

    return splat_torch.splat


@cache
def _fastest() -> Backend:
    """`torch` where it finds a GPU; it is asked only where there is a driver for one."""
    if not any(path.exists() for path in _DRIVERS):
        return "numba"
    import torch

    return "torch" if torch.cuda.is_available() else "numba"


def _matrices(cameras: Cameras) -> NDArray[np.float64]:
    """`(V, 3, 4)`, from a point of the scene to (u * depth, v * depth, depth)."""
    rotation_V33, position_V3 = cameras.poses[:, :3, :3], cameras.poses[:, :3, 3]
    matrix_V34 = np.empty((len(cameras), 3, 4))
    matrix_V34[:, :, :3] = cameras.intrinsics @ rotation_V33.transpose(0, 2, 1)
    matrix_V34[:, :, 3] = -np.einsum("vij,vj->vi", matrix_V34[:, :, :3], position_V3)
    return matrix_V34
