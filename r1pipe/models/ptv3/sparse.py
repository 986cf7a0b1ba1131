"""Sub-manifold sparse convolutions: spconv's native algorithm, which also runs without a GPU."""

import warnings
from typing import Any

import torch
from spconv import core
from torch import Tensor

# For its implicit GEMM, which nothing here uses, spconv describes 644 CUDA kernels twice when it is imported: 12 of 13 s.
core.ALL_IMPGEMM_PARAMS = []

with warnings.catch_warnings():
    # spconv 2.3.6 decorates its functions with torch.cuda.amp names that torch has moved.
    warnings.simplefilter("ignore", FutureWarning)
    import spconv.pytorch as spconv

MARGIN = 96
"""Added to the grid's extent; it does not change the result, the authors' code has it."""


class Sites:
    """The active voxels of one level, with the neighbour pairs that its convolutions have computed so far."""

    def __init__(self, grid_N3: Tensor, batch_N: Tensor) -> None:
        self._indices_N4 = torch.cat([batch_N[:, None], grid_N3], dim=1).int().contiguous()
        self._shape = (grid_N3.max(dim=0).values + MARGIN).tolist()
        self._num_clouds = int(batch_N[-1]) + 1
        self._pairs: dict[str, Any] = {}

    def convolve(self, conv: "SubMConv3d", feat_NC: Tensor) -> Tensor:
        """The convolution's output at the same voxels."""
        tensor = spconv.SparseConvTensor(feat_NC, self._indices_N4, self._shape, self._num_clouds)
        tensor.indice_dict = self._pairs
        output = conv(tensor)
        self._pairs = output.indice_dict
        return output.features  # type: ignore[no-any-return]


class SubMConv3d(spconv.SubMConv3d):  # type: ignore[misc]
    """A convolution that is active only where its input is; weight `(out, kx, ky, kz, in)`, not flipped."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, bias: bool) -> None:
        # All kernels of one size on one level share their neighbour pairs, and must then share the algorithm.
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            bias=bias,
            indice_key=f"subm{kernel_size}",
            algo=spconv.ConvAlgo.Native,
        )

    def forward(self, tensor: spconv.SparseConvTensor) -> spconv.SparseConvTensor:
        """Convolve; in evaluation too the bias is added afterwards, for on the CPU spconv cannot fuse it."""
        return self._conv_forward(True, tensor, self.weight, self.bias)
