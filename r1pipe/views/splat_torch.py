"""The renderer on a GPU: `splat_numba` step for step, over all points and views at once.

Each operation is one of torch's, in float64 and in the order of `splat_numba`, so that nothing is fused and every bit agrees.

Shape suffixes: V views, H rows, W columns, P points, S sightings (a point in a view).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1pipe.views.splat_numba import CLEAR, HOLE_RATIO

_AT_ONCE = 2**22
"""Points times views, and pixels times views, that are in memory together: about 250 MB of float64."""


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    xyz, rgb = torch.tensor(xyz_P3, device=device), torch.tensor(rgb_P3, device=device)
    matrix, near = torch.tensor(matrix_V34, device=device), torch.tensor(near_V, device=device)
    height, width = index_VHW.shape[1:]
    margin = radius + gap
    size = height + 2 * margin, width + 2 * margin
    step = max(_AT_ONCE // (size[0] * size[1]), 1)
    for views in (slice(first, first + step) for first in range(0, len(matrix), step)):
        keys_VHW = _least(_project(xyz, matrix[views], near[views], margin, size), 2 * radius + 1)
        _colour(rgb, _fill(keys_VHW, gap), rgb_VHW3[views], depth_VHW[views], index_VHW[views])


def _project(xyz_P3: Tensor, matrix_V34: Tensor, near_V: Tensor, margin: int, size: tuple[int, int]) -> Tensor:
    """`(V, *size)`: the least key of the points in each pixel; `size` counts a margin of so many pixels around the image."""
    keys_VHW = torch.full((len(matrix_V34), *size), CLEAR, dtype=torch.int64, device=xyz_P3.device)
    step = max(_AT_ONCE // len(matrix_V34), 1)
    for first in range(0, len(xyz_P3), step):
        pixel_S, key_S = _sightings(xyz_P3[first : first + step], first, matrix_V34, near_V, margin, size)
        keys_VHW.view(-1).scatter_reduce_(0, pixel_S, key_S, "amin")
    return keys_VHW


def _sightings(
    xyz_P3: Tensor, first: int, matrix_V34: Tensor, near_V: Tensor, margin: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Pixels, counted through all views, and keys `(S,)` of the points that are seen; `first` is the first one's index."""
    x_P, y_P, z_P = xyz_P3.double().unbind(dim=1)
    m_34V1 = matrix_V34.permute(1, 2, 0)[..., None]
    u_VP, v_VP, depth_VP = (m[0] * x_P + m[1] * y_P + m[2] * z_P + m[3] for m in m_34V1)
    u_VP = u_VP / depth_VP + 0.5 + margin
    v_VP = v_VP / depth_VP + 0.5 + margin
    height, width = size
    seen_VP = (near_V[:, None] < depth_VP) & (depth_VP < torch.inf)
    # Checked as floats: far outside the image the cast to an integer would wrap.
    seen_VP &= (u_VP >= 0) & (u_VP < width) & (v_VP >= 0) & (v_VP < height)
    view_S, point_S = seen_VP.nonzero(as_tuple=True)
    pixel_S = (view_S * height + v_VP[seen_VP].long()) * width + u_VP[seen_VP].long()
    return pixel_S, depth_VP[seen_VP].float().view(torch.int32).long() << 32 | point_S + first


def _least(keys_VHW: Tensor, side: int) -> Tensor:
    """The minimum over every square of `side` pixels inside the picture."""
    for dim in (1, 2):
        keys_VHW = keys_VHW.unfold(dim, side, 1).amin(dim=-1)
    return keys_VHW


def _fill(keys_VHW: Tensor, gap: int) -> Tensor:
    """The pictures inside a margin of `gap` pixels, holes up to so wide filled from what closes over them."""
    if gap == 0:
        return keys_VHW
    closed_VHW = -_least(-_least(keys_VHW, gap + 1), gap + 1)
    keys_VHW = keys_VHW[:, gap:-gap, gap:-gap]
    hole_VHW = (keys_VHW == CLEAR) | (_depth(keys_VHW).double() > HOLE_RATIO * _depth(closed_VHW).double())
    return torch.where(hole_VHW, closed_VHW, keys_VHW)


def _depth(keys: Tensor) -> Tensor:
    """Depths of keys."""
    return (keys >> 32).int().view(torch.float32)


def _colour(
    rgb_P3: Tensor,
    keys_VHW: Tensor,
    rgb_VHW3: NDArray[np.uint8],
    depth_VHW: NDArray[np.float32],
    index_VHW: NDArray[np.int32],
) -> None:
    """Read depth, index and colour off the keys, where there is a point."""
    drawn_VHW = keys_VHW != CLEAR
    keys_S, where_VHW = keys_VHW[drawn_VHW], drawn_VHW.cpu().numpy()
    point_S = keys_S & 0xFFFFFFFF
    depth_VHW[where_VHW] = _depth(keys_S).cpu().numpy()
    index_VHW[where_VHW] = point_S.int().cpu().numpy()
    rgb_VHW3[where_VHW] = rgb_P3[point_S].cpu().numpy()
