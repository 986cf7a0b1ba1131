"""A second Point Transformer v3: slow, written from the authors' arithmetic and names, one row at a time.

It shares nothing with the package but the state dict that it reads.

Shape suffixes: N rows, M pooled rows, C channels, Q queries, K keys, H heads, D head width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, gelu, layer_norm, linear, silu

Cell = tuple[int, int, int]


def interleave(cell: Cell, depth: int) -> int:
    return sum((value >> bit & 1) << 3 * bit + 2 - axis for axis, value in enumerate(cell) for bit in range(depth))


def hilbert(cell: Cell, depth: int) -> int:
    """Skilling's `AxestoTranspose`, as published in 2004."""
    x, high = list(cell), 1 << depth - 1
    bits = [high >> i for i in range(depth - 1)]
    for bit in bits:
        for axis in range(3):
            if x[axis] & bit:
                x[0] ^= bit - 1
            else:
                swap = (x[0] ^ x[axis]) & bit - 1
                x[0], x[axis] = x[0] ^ swap, x[axis] ^ swap
    x[1] ^= x[0]
    x[2] ^= x[1]
    flip = 0
    for bit in bits:
        flip ^= bit - 1 if x[2] & bit else 0
    return interleave((x[0] ^ flip, x[1] ^ flip, x[2] ^ flip), depth)


def code(order: str, cell: Cell, depth: int) -> int:
    curve, _, is_transposed = order.partition("-")
    x, y, z = cell
    return {"z": interleave, "hilbert": hilbert}[curve]((y, x, z) if is_transposed else cell, depth)


@dataclass
class Grid:
    """One level: each row's cloud and cell, its codes on the curves, and the bits they have."""

    batch: list[int]
    cells: list[Cell]
    codes: list[list[int]]
    depth: int
    taps: dict[int, dict[Cell, tuple[list[int], list[int]]]] = field(default_factory=dict)

    def neighbours(self, size: int) -> dict[Cell, tuple[list[int], list[int]]]:
        """For each tap of a kernel the rows that have a neighbour there, and those neighbours."""
        if size in self.taps:
            return self.taps[size]
        row_of = {(b, *cell): row for row, (b, cell) in enumerate(zip(self.batch, self.cells, strict=True))}
        found = self.taps[size] = {tap: ([], []) for tap in product(range(size), repeat=3)}
        for (b, *cell), row in row_of.items():
            for tap, (rows, others) in found.items():
                other = row_of.get((b, *(c + t - size // 2 for c, t in zip(cell, tap, strict=True))))
                if other is not None:
                    rows.append(row)
                    others.append(other)
        return found

    def clouds(self, order: int) -> list[list[int]]:
        """Rows of each cloud as they stand on a curve."""
        ranked = sorted(range(len(self.batch)), key=lambda row: (self.batch[row], self.codes[order][row]))
        return [[row for row in ranked if self.batch[row] == b] for b in sorted(set(self.batch))]

    def pool(self, stride: int) -> tuple["Grid", list[list[int]]]:
        bits = (stride - 1).bit_length()
        bits = 0 if bits > self.depth else bits
        members: dict[tuple[int, int], list[int]] = {}
        for row, (b, value) in enumerate(zip(self.batch, self.codes[0], strict=True)):
            members.setdefault((b, value >> 3 * bits), []).append(row)
        groups = [members[key] for key in sorted(members)]
        heads = [rows[0] for rows in groups]
        cells = [tuple(value >> bits for value in self.cells[row]) for row in heads]
        codes = [[values[row] >> 3 * bits for row in heads] for values in self.codes]
        return Grid([self.batch[row] for row in heads], cells, codes, self.depth - bits), groups


DEFAULTS = {"semantics": "current", "enable_flash": True, "pre_norm": True, "extended_depth": False}


class Reference:
    """The features of every stage, from a model's state dict and arguments alone."""

    def __init__(self, state: dict[str, Tensor], arguments: dict, condition: int, context_D: Tensor | None) -> None:
        self.state = state
        self.arguments = DEFAULTS | arguments
        self.condition = condition
        self.context_D = context_D

    def features(self, points: dict[str, Tensor]) -> dict[str, Tensor]:
        """What each stage makes of the cloud."""
        cells = [tuple(cell) for cell in points["grid_coord"].tolist()]
        batch = [sum(row >= end for end in points["offset"].tolist()) for row in range(len(cells))]
        depth = (max(map(max, cells)) + self.arguments["extended_depth"]).bit_length()
        codes = [[code(order, cell, depth) for cell in cells] for order in self.arguments["order"]]
        level = Grid(batch, cells, codes, depth)
        stages: dict[str, Tensor] = {}
        feat_NC = gelu(self.norm("embedding.stem.norm", self.convolve("embedding.stem.conv", points["feat"], level)))
        stages["embedding"] = feat_NC
        skips = []
        for s, depth in enumerate(self.arguments["enc_depths"]):
            if s:
                coarse, groups = level.pool(self.arguments["stride"][s - 1])
                skips.append((feat_NC, level, groups))
                feat_NC, level = self.down(f"enc.enc{s}.down", feat_NC, groups), coarse
            feat_NC = stages[f"enc{s}"] = self.blocks("enc", s, depth, feat_NC, feat_NC, level)
        for s, (skip_NC, level, groups) in reversed(list(enumerate(skips))):
            feat_NC, own_NC = self.up(f"dec.dec{s}.up", feat_NC, skip_NC, groups)
            # The first convolution does not see what came from below.
            depth = self.arguments["dec_depths"][s]
            feat_NC = stages[f"dec{s}"] = self.blocks("dec", s, depth, feat_NC, own_NC, level)
        return stages

    def down(self, name: str, feat_NC: Tensor, groups: list[list[int]]) -> Tensor:
        projected_NC = self.linear(f"{name}.proj", feat_NC)
        highest_MC = torch.stack([projected_NC[rows].max(dim=0).values for rows in groups])
        return gelu(self.norm(f"{name}.norm.0", highest_MC))

    def up(self, name: str, feat_MC: Tensor, skip_NC: Tensor, groups: list[list[int]]) -> tuple[Tensor, Tensor]:
        """The sum, and the finer level's own part of it."""
        coarse_MC, own_NC = (
            gelu(self.norm(f"{name}.{part}.1", self.linear(f"{name}.{part}.0", x)))
            for part, x in (("proj", feat_MC), ("proj_skip", skip_NC))
        )
        sum_NC = own_NC.clone()
        for row_C, rows in zip(coarse_MC, groups, strict=True):
            sum_NC[rows] += row_C
        return sum_NC, own_NC

    def blocks(self, part: str, s: int, depth: int, feat_NC: Tensor, conv_NC: Tensor, level: Grid) -> Tensor:
        heads, most = self.arguments[f"{part}_num_head"][s], self.arguments[f"{part}_patch_size"][s]
        for i in range(depth):
            name = f"{part}.{part}{s}.block{i}"
            convolved_NC = self.linear(f"{name}.cpe.1", self.convolve(f"{name}.cpe.0", conv_NC, level))
            feat_NC = feat_NC + self.norm(f"{name}.cpe.2", convolved_NC)
            order = i % len(self.arguments["order"])
            attend = partial(self.attend, f"{name}.attn", level=level, order=order, heads=heads, most=most)
            feat_NC, _ = self.branch(f"{name}.norm1.0", feat_NC, attend)
            feat_NC, branch_NC = self.branch(f"{name}.norm2.0", feat_NC, partial(self.mlp, f"{name}.mlp.0"))
            conv_NC = branch_NC if self.arguments["semantics"] == "v1.5.1" else feat_NC
        return feat_NC

    def branch(self, norm: str, feat_NC: Tensor, work: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        if self.arguments["pre_norm"]:
            branch_NC = work(self.norm(norm, feat_NC))
            return feat_NC + branch_NC, branch_NC
        branch_NC = work(feat_NC)
        feat_NC = self.norm(norm, feat_NC + branch_NC)
        # A conditioned norm did not hand its output to the next convolution.
        return feat_NC, branch_NC if f"{norm}.norm.0.weight" in self.state else feat_NC

    def attend(self, name: str, feat_NC: Tensor, level: Grid, order: int, heads: int, most: int) -> Tensor:
        """Runs of K rows attend within themselves; the rows left over at the end of a cloud to its last K rows."""
        clouds = level.clouds(order)
        smallest = min(map(len, clouds))
        q_NHD, k_NHD, v_NHD = self.linear(f"{name}.qkv", feat_NC).reshape(len(feat_NC), 3, heads, -1).unbind(dim=1)
        mixed_NC = torch.full_like(feat_NC, torch.nan)
        for rows in clouds:
            size = min(most, len(rows) if self.arguments["enable_flash"] else smallest)
            for start in range(0, len(rows), size):
                first = min(start, len(rows) - size)
                queries, keys = rows[start : start + size], rows[first : first + size]
                logits_HQK = torch.einsum("qhd,khd->hqk", q_NHD[queries], k_NHD[keys]) / q_NHD.shape[2] ** 0.5
                logits_HQK = logits_HQK + self.apart(f"{name}.rpe.rpe_table", queries, keys, level, most)
                mixed_QHD = torch.einsum("hqk,khd->qhd", logits_HQK.softmax(dim=2), v_NHD[keys])
                mixed_NC[queries] = mixed_QHD.flatten(start_dim=1)
        return self.linear(f"{name}.proj", mixed_NC)

    def apart(self, name: str, queries: list[int], keys: list[int], level: Grid, most: int) -> Tensor | int:
        if name not in self.state:
            return 0
        bound = int((4 * most) ** (1 / 3) * 2)
        cell_N3 = torch.tensor(level.cells)
        apart_QK3 = (cell_N3[queries][:, None] - cell_N3[keys][None]).clamp(-bound, bound) + bound
        return self.state[name].view(3, 2 * bound + 1, -1)[torch.arange(3), apart_QK3].sum(dim=2).permute(2, 0, 1)

    def mlp(self, name: str, feat_NC: Tensor) -> Tensor:
        return self.linear(f"{name}.fc2", gelu(self.linear(f"{name}.fc1", feat_NC)))

    def convolve(self, name: str, feat_NC: Tensor, level: Grid) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        output_NC = torch.zeros(len(feat_NC), len(weight)) if bias is None else bias.repeat(len(feat_NC), 1)
        for (x, y, z), (rows, others) in level.neighbours(weight.shape[1]).items():
            output_NC[rows] += feat_NC[others] @ weight[:, x, y, z].T
        return output_NC

    def norm(self, name: str, feat_NC: Tensor) -> Tensor:
        if f"{name}.norm.{self.condition}.weight" not in self.state:
            return self.plain_norm(name, feat_NC)
        feat_NC = self.plain_norm(f"{name}.norm.{self.condition}", feat_NC)
        if f"{name}.modulation.1.weight" not in self.state:
            return feat_NC
        shift_C, scale_C = self.linear(f"{name}.modulation.1", silu(self.context_D)).chunk(2)
        return feat_NC * (1 + scale_C) + shift_C

    def plain_norm(self, name: str, feat_NC: Tensor) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        if f"{name}.running_mean" not in self.state:
            return layer_norm(feat_NC, weight.shape, weight, bias, eps=1e-5)
        mean, variance = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
        return batch_norm(feat_NC, mean, variance, weight, bias, eps=1e-3)

    def linear(self, name: str, feat_NC: Tensor) -> Tensor:
        return linear(feat_NC, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))
