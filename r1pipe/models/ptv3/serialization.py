"""Space-filling curves: the order in which Point Transformer v3 reads a cloud.

Shape suffixes: N voxels, R orders. A code holds `batch << 3 * depth | curve position`, so that one sort orders all
clouds of a batch. Every curve has the prefix property: a voxel's code without its last three bits is the code of the
cell that holds it on a grid twice as coarse; pooling therefore shifts codes and never computes them again.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from r1pipe.errors import DataError

MAX_DEPTH = 16
"""Bits an axis, at most: what the authors' code allows."""

_SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def serialize(grid_N3: Tensor, batch_N: Tensor, *, depth: int, orders: Sequence[str]) -> Tensor:
    """The codes `(R, N)` of integer voxels, one row an order.

    Args:
        grid_N3: voxel coordinates, 0 <= value < 2**depth.
        batch_N: the cloud of each voxel, 0 for the first.
        depth: bits an axis.
        orders: of "z", "z-trans", "hilbert", "hilbert-trans".

    Raises:
        DataError: if the coordinates are negative, or do not fit into the bits of a code.
    """
    _check_range(grid_N3, batch_N, depth)
    base_N = batch_N.long() << 3 * depth
    return torch.stack([base_N | CURVES[order](grid_N3.long(), depth) for order in orders])


def _check_range(grid_N3: Tensor, batch_N: Tensor, depth: int) -> None:
    if int(grid_N3.min()) < 0:
        raise DataError(f"Expected voxel coordinates from 0 on, found {int(grid_N3.min())}.")
    bits = 3 * depth + int(batch_N.max()).bit_length()
    if depth > MAX_DEPTH or bits > 63:
        raise DataError(
            f"Expected a grid of at most {MAX_DEPTH} bits an axis and codes of at most 63, found {depth} and {bits}."
        )


def z_curve(grid_N3: Tensor, depth: int) -> Tensor:
    """Morton codes `(N,)`: bit i of x, y, z becomes bit 3i+2, 3i+1, 3i; `depth` does not change them."""
    x_N, y_N, z_N = (_spread(axis_N) for axis_N in grid_N3.unbind(1))
    return x_N << 2 | y_N << 1 | z_N


def _spread(value_N: Tensor) -> Tensor:
    """Put two zero bits between the bits of a number below 2**21."""
    for shift, mask in _SPREAD:
        value_N = (value_N | value_N << shift) & mask
    return value_N


def hilbert_curve(grid_N3: Tensor, depth: int) -> Tensor:
    """Hilbert codes `(N,)`: Skilling, "Programming the Hilbert curve" (2004), axes in the order x, y, z."""
    axes = list(grid_N3.unbind(1))
    for bit in range(depth - 1, 0, -1):
        low = (1 << bit) - 1
        for i in range(3):
            # Where the bit is set the lower bits of x are inverted, elsewhere they are exchanged with this axis.
            is_set_N = -(axes[i] >> bit & 1)
            exchange_N = (axes[0] ^ axes[i]) & low & ~is_set_N
            axes[i] = axes[i] ^ exchange_N
            axes[0] = axes[0] ^ exchange_N ^ (is_set_N & low)
    return _from_gray(z_curve(torch.stack(axes, dim=1), depth))


def _from_gray(code_N: Tensor) -> Tensor:
    """Gray code to binary: every bit becomes the parity of the bits from it upwards."""
    for shift in (1, 2, 4, 8, 16, 32):
        code_N = code_N ^ code_N >> shift
    return code_N


def _transposed(curve: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    return lambda grid_N3, depth: curve(grid_N3[:, [1, 0, 2]], depth)


CURVES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "z": z_curve,
    "z-trans": _transposed(z_curve),
    "hilbert": hilbert_curve,
    "hilbert-trans": _transposed(hilbert_curve),
}
"""The authors' names; "-trans" exchanges x and y."""
