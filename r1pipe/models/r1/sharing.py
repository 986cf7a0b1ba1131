"""Rows of a batch that begin alike are read once: the questions about one room in SFT, a prompt's completions in GRPO.

No token sees what comes after it, so what the rows share has the same hidden states in each of them. It stands once, the
rows' own ends behind it, blind for each other. What comes out is what came out row by row, up to rounding.

Shape suffixes: B batch, L length, D width, R rows that are read, M their length.
"""

from typing import NamedTuple

import torch
from torch import Tensor

WORTH = 0.8
"""Folding spares reading from this share of the tokens on; a mask of its own costs attention its fastest path."""


class Fold(NamedTuple):
    """Where the tokens of a batch lie in fewer, longer rows."""

    sources: Tensor
    """`(R, M)`: which token of the batch, counted row by row, is read here."""

    targets: Tensor
    """`(B, L)`: where each token of the batch is read, counted likewise."""

    sees: Tensor
    """`(R, 1, M, M)`: whether the token of a row sees that of a column."""

    positions: Tensor
    """`(R, M)`: each token's column in the batch, as positions count without a fold."""

    def pack(self, embeds_BLD: Tensor) -> Tensor:
        """`(R, M, D)`: what is read."""
        return embeds_BLD.flatten(0, 1)[self.sources]

    def unpack(self, hidden_RMD: Tensor) -> Tensor:
        """`(B, L, D)`: what was made of each token of the batch; of padding, anything."""
        return hidden_RMD.flatten(0, 1)[self.targets]


@torch.no_grad()
def fold(embeds_BLD: Tensor, mask_BL: Tensor) -> Fold | None:
    """How to read a batch whose neighbouring rows begin alike; None where that would spare too little."""
    is_held_BL = mask_BL.bool()
    length = mask_BL.shape[1]
    ends = (length - is_held_BL.flip(1).int().argmax(dim=1)).tolist()
    groups = _groups(_alike(embeds_BLD, is_held_BL), ends)
    longest = max(shared + sum(ends[row] - shared for row in rows) for rows, shared in groups)
    if len(groups) * longest > WORTH * mask_BL.numel():
        return None
    source_RM = torch.zeros(len(groups), longest, dtype=torch.long)
    owner_RM = torch.full((len(groups), longest), -1)  # -1: everybody's
    target_BL = torch.zeros(mask_BL.shape, dtype=torch.long)
    filled_R1 = torch.zeros(len(groups), 1, dtype=torch.long)
    for number, (rows, shared) in enumerate(groups):
        source_RM[number, :shared] = rows[0] * length + torch.arange(shared)
        target_BL[rows, :shared] = number * longest + torch.arange(shared)
        start = shared
        for row in rows:
            count = ends[row] - shared
            source_RM[number, start : start + count] = row * length + shared + torch.arange(count)
            owner_RM[number, start : start + count] = row
            target_BL[row, shared : ends[row]] = number * longest + start + torch.arange(count)
            start += count
        filled_R1[number] = start
    device, columns_M = mask_BL.device, torch.arange(longest)
    source_RM, owner_RM = source_RM.to(device), owner_RM.to(device)
    is_held_RM = is_held_BL.flatten()[source_RM] & (columns_M < filled_R1).to(device)
    is_shared_RM, is_past_MM = owner_RM == -1, (columns_M[:, None] >= columns_M).to(device)
    sees_RMM = is_past_MM & (is_shared_RM | is_held_RM)[:, None] & is_held_RM[:, None]
    sees_RMM &= is_shared_RM[:, None] | (owner_RM[:, :, None] == owner_RM[:, None])
    sees_RMM |= torch.eye(longest, dtype=torch.bool, device=device)  # padding sees itself: nothing at all is NaN
    return Fold(source_RM, target_BL.to(device), sees_RMM[:, None], source_RM % length)


def _alike(embeds_BLD: Tensor, is_held_BL: Tensor) -> list[int]:
    """How many tokens each row begins with that its predecessor begins with; 0 for the first.

    Alike up to rounding: a batched product rounds a row by its place in the batch.
    """
    far_BL = (embeds_BLD[1:] - embeds_BLD[:-1]).abs().amax(dim=-1)
    near_BL = far_BL <= 1e-5 * embeds_BLD[:-1].abs().amax(dim=-1)
    same_BL = near_BL & (is_held_BL[1:] == is_held_BL[:-1])
    return [0, *same_BL.int().cumprod(dim=1).sum(dim=1).tolist()]


def _groups(alike: list[int], ends: list[int]) -> list[tuple[list[int], int]]:
    """Runs of rows, each with the number of tokens that all of its rows begin with.

    A row joins its predecessor's where at least half of it is shared: system turns are alike in every room.
    """
    groups: list[tuple[list[int], int]] = []
    for row, (shared, end) in enumerate(zip(alike, ends, strict=True)):
        if groups and 2 * shared >= end:
            rows, before = groups[-1]
            groups[-1] = ([*rows, row], min(before, shared))
        else:
            groups.append(([row], end))
    # A row alone shares nothing: all of it is its own end.
    return [(rows, shared if len(rows) > 1 else 0) for rows, shared in groups]
