"""A batch of clouds at one resolution: where its rows are, in which orders they are read, never what they carry.

Shape suffixes: N rows, R orders, B clouds, S patch slots (number of patches times their size), M pooled rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from r1pipe.errors import DataError
from r1pipe.models.ptv3.inputs import Domain, read
from r1pipe.models.ptv3.serialization import serialize
from r1pipe.models.ptv3.sparse import Sites


class Patches(NamedTuple):
    """Rows of one order cut into runs of equal length within their clouds."""

    size: int
    source: Tensor
    """`(S,)`, the rank (place in the order) that fills each slot."""

    slot: Tensor
    """`(N,)`, the slot from which each rank takes its result."""

    mask: Tensor | None
    """`(S,)`, whether a slot may be attended to; None where all may."""


class Pooled(NamedTuple):
    """A coarser level and how the rows of the finer one fall into it."""

    level: "Level"
    cluster: Tensor
    """`(N,)`, the coarse row of each fine row."""

    by_cluster: Tensor
    """`(N,)`, fine rows, sorted by coarse row."""

    counts: Tensor
    """`(M,)`, fine rows in each coarse row."""


@dataclass
class Level:
    """One grid of a batch of clouds."""

    coord: Tensor
    """`(N, 3)`, metres."""

    grid: Tensor
    """`(N, 3)`, int64."""

    batch: Tensor
    """`(N,)`, the cloud of each row."""

    codes: Tensor
    """`(R, N)`, places on the curves."""

    depth: int
    """Bits an axis that the codes still have."""

    domain: Domain | None = None
    """The data set of the batch, for norms that differ by it."""

    sites: Sites = field(init=False)
    """Neighbourhoods of the sparse convolutions, shared by encoder and decoder."""

    orders: Tensor = field(init=False)
    """`(R, N)`, row at each rank."""

    ranks: Tensor = field(init=False)
    """`(R, N)`, rank of each row: the inverse of `orders`."""

    _patches: dict[int, Patches] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Sort by every code."""
        self.sites = Sites(self.grid, self.batch)
        self.orders = self.codes.argsort(dim=1)
        self.ranks = torch.empty_like(self.orders).scatter_(
            1, self.orders, torch.arange(len(self.batch), device=self.batch.device).expand_as(self.orders)
        )

    @classmethod
    def read(cls, cloud: Mapping[str, Any], orders: Sequence[str], *, extended_depth: bool = False) -> Self:
        """The finest level of a batch.

        Args:
            cloud: what `PointTransformerV3.forward` describes.
            orders: names of the curves.
            extended_depth: count bits as Pointcept does from 1.6 on; changes Hilbert codes where the largest
                coordinate plus one is a power of two.

        Raises:
            DataError: if the cloud is not what it should be, or a voxel occurs twice in it.
        """
        coord_N3, grid_N3, batch_N, domain = read(cloud)
        depth = (int(grid_N3.max()) + extended_depth).bit_length()
        code_RN = serialize(grid_N3, batch_N, depth=depth, orders=orders)
        level = cls(coord_N3, grid_N3, batch_N, code_RN, depth, domain)
        sorted_N = level.codes[0][level.orders[0]]
        if bool((sorted_N[1:] == sorted_N[:-1]).any()):
            raise DataError(
                "Expected every voxel once in its cloud, found one twice: pool the points of a voxel first."
            )
        return level

    def shuffled(self) -> Self:
        """The same level with its orders in random sequence, so that blocks see them in another one."""
        chosen = torch.randperm(len(self.codes), device=self.codes.device)
        self.codes, self.orders = self.codes[chosen], self.orders[chosen]
        self.ranks = self.ranks[chosen]
        return self

    @cached_property
    def counts(self) -> Tensor:
        """`(B,)`, rows of each cloud."""
        return torch.bincount(self.batch)

    @cached_property
    def smallest(self) -> int:
        """Rows of the smallest cloud."""
        return int(self.counts.min())

    def pool(self, stride: int) -> Pooled:
        """The level of `stride` times coarser voxels; its rows are in the sequence of the first order."""
        bits = (stride - 1).bit_length()
        if bits > self.depth:
            bits = 0
        _, cluster_N, counts_M = torch.unique(self.codes[0] >> 3 * bits, return_inverse=True, return_counts=True)
        by_cluster_N = cluster_N.argsort(stable=True)
        head_M = by_cluster_N[counts_M.cumsum(0) - counts_M]
        coarse = Level(
            torch.segment_reduce(self.coord[by_cluster_N], "mean", lengths=counts_M, axis=0),
            self.grid[head_M] >> bits,
            self.batch[head_M],
            self.codes[:, head_M] >> 3 * bits,
            self.depth - bits,
            self.domain,
        )
        return Pooled(coarse, cluster_N, by_cluster_N, counts_M)

    def patches(self, patch_size: int) -> Patches:
        """Cut the orders into patches of `patch_size`, the same for every order.

        A cloud of n > K rows fills its last patch with the rows K places before the empty slots: its tail attends to
        the last K rows. A cloud of n <= K rows is one patch of n, and shrinks no other cloud's patches.
        """
        if patch_size not in self._patches:
            self._patches[patch_size] = _cut(self.counts, patch_size)
        return self._patches[patch_size]


def _cut(counts_B: Tensor, patch_size: int) -> Patches:
    # Where all clouds are smaller than a patch, the largest one sets its size: the same result, less padding.
    size = min(patch_size, int(counts_B.max()))
    padded_B = (counts_B + size - 1) // size * size
    start_B, padded_start_B = counts_B.cumsum(0) - counts_B, padded_B.cumsum(0) - padded_B
    cloud_S = torch.repeat_interleave(torch.arange(len(counts_B), device=counts_B.device), padded_B)
    place_S = torch.arange(len(cloud_S), device=counts_B.device) - padded_start_B[cloud_S]
    is_empty_S = place_S >= counts_B[cloud_S]
    borrows_S = is_empty_S & (counts_B[cloud_S] > size)
    masked_S = is_empty_S & ~borrows_S
    rank_S = torch.where(borrows_S, place_S - size, place_S.masked_fill(masked_S, 0))
    slot_N = torch.arange(int(counts_B.sum()), device=counts_B.device)
    slot_N = slot_N + torch.repeat_interleave(padded_start_B - start_B, counts_B)
    return Patches(size, rank_S + start_B[cloud_S], slot_N, ~masked_S if bool(masked_S.any()) else None)
