"""Rows of a batch that begin alike are read once: the questions about one room, the completions of one prompt.

No token sees what comes after it, so what rows begin with has the same hidden states in each of them. It is read once,
for all of them, and each row's own end sees only what is before it in its row: a tree, as deep as it comes. What comes
out is what came out row by row, up to rounding.

Shape suffixes: B batch, L length, D width, T tokens that are read, R rows that they are read in, M their length, H
attention heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

WORTH = 0.8
"""Folding spares reading from this share of the tokens on; a mask of its own costs attention its fastest path."""

LONGEST = 4
"""How many times the batch's length a row that is read may have: attention to what is not seen costs too."""


class Fold(NamedTuple):
    """Where the tokens of a batch lie in fewer, longer rows."""

    sources: Tensor
    """`(R, M)`: which token of the batch, counted row by row, is read here."""

    targets: Tensor
    """`(B, L)`: where each token of the batch is read, counted likewise."""

    sees: Tensor
    """`(R, 1, M, M)`: whether the token of a row sees that of a column."""

    positions: Tensor
    """`(R, M)`: each token's position, as in the batch."""

    def pack(self, embeds_BLD: Tensor) -> Tensor:
        """`(R, M, D)`: what is read."""
        return embeds_BLD.flatten(0, 1)[self.sources]

    def unpack(self, hidden_RMD: Tensor) -> Tensor:
        """`(B, L, D)`: what was made of each token of the batch; of padding, anything."""
        return hidden_RMD.flatten(0, 1)[self.targets]

    def unpack_cache(self, read: DynamicCache, cache: Cache) -> None:
        """Give `cache`, still empty, the keys and values of each token of the batch; of padding, anything."""
        for number, layer in enumerate(read):
            keys_BLHD, values_BLHD = (self.unpack(kept_RHMD.transpose(1, 2)) for kept_RHMD in layer[:2])
            cache.update(keys_BLHD.transpose(1, 2), values_BLHD.transpose(1, 2), number)


@torch.no_grad()
def fold(embeds_BLD: Tensor, mask_BL: Tensor, positions_BL: Tensor | None = None) -> Fold | None:
    """How to read a batch whose neighbouring rows begin alike; None where that would spare too little.

    Args:
        embeds_BLD: the embedded tokens.
        mask_BL: 0 where there is padding.
        positions_BL: each token's position; its column where None.
    """
    device, length = mask_BL.device, mask_BL.shape[1]
    is_held_BL = mask_BL.bool().cpu()
    counts = is_held_BL.cumsum(dim=1)
    groups_B, alike_B = _groups(_alike(embeds_BLD, mask_BL.bool()), counts, LONGEST * length)
    # Whose token stands in each column of a row: its own, or that of a row before it.
    owner_BL = torch.arange(len(is_held_BL))[:, None].repeat(1, length)
    for row, shared in enumerate(alike_B):
        owner_BL[row, :shared] = owner_BL[row - 1, :shared]
    is_own_BL = is_held_BL & (owner_BL == torch.arange(len(is_held_BL))[:, None])
    row_T, column_T = is_own_BL.nonzero(as_tuple=True)
    group_T = torch.tensor(groups_B)[row_T]
    sizes_R = group_T.bincount()
    longest = int(sizes_R.max())
    if len(sizes_R) * longest > WORTH * mask_BL.numel():
        return None
    slot_T = torch.arange(len(row_T)) - (sizes_R.cumsum(0) - sizes_R)[group_T]
    slot_BL = torch.zeros_like(owner_BL).masked_scatter(is_own_BL, group_T * longest + slot_T)
    target_BL = slot_BL[owner_BL, torch.arange(length)]
    rows_RM, columns_RM = torch.zeros(2, len(sizes_R), longest, dtype=torch.long)
    rows_RM[group_T, slot_T], columns_RM[group_T, slot_T] = row_T, column_T
    is_filled_RM = torch.arange(longest) < sizes_R[:, None]
    sees_RMM = owner_BL[rows_RM[:, :, None], columns_RM[:, None]] == rows_RM[:, None]
    sees_RMM &= (columns_RM[:, None] <= columns_RM[:, :, None]) & is_filled_RM[:, None]
    sees_RMM |= torch.eye(longest, dtype=torch.bool)  # padding sees itself: nothing at all is NaN
    source_RM = (rows_RM * length + columns_RM).to(device)
    columns_BL = torch.arange(length, device=device) if positions_BL is None else positions_BL
    positions_RM = columns_BL.expand(mask_BL.shape).flatten()[source_RM]
    return Fold(source_RM, target_BL.to(device), sees_RMM[:, None].to(device), positions_RM)


def _alike(embeds_BLD: Tensor, is_held_BL: Tensor) -> list[int]:
    """How many columns each row begins with that its predecessor begins with; 0 for the first.

    Alike up to rounding: a batched product rounds a row by its place in the batch.
    """
    far_BL = (embeds_BLD[1:] - embeds_BLD[:-1]).abs().amax(dim=-1)
    near_BL = far_BL <= 1e-5 * embeds_BLD[:-1].abs().amax(dim=-1)
    same_BL = near_BL & (is_held_BL[1:] == is_held_BL[:-1])
    return [0, *same_BL.int().cumprod(dim=1).sum(dim=1).tolist()]


def _groups(alike: list[int], counts_BL: Tensor, most: int) -> tuple[list[int], list[int]]:
    """Which rows are read in one, by number, and how many columns each shares with the row before it there.

    A row joins its predecessor's where at least half of its tokens are shared, and `most` are not exceeded.
    """
    numbers: list[int] = []
    shares: list[int] = []
    size = 0
    for shared, counts_L in zip(alike, counts_BL, strict=True):
        total = int(counts_L[-1])
        known = int(counts_L[shared - 1]) if shared else 0
        joins = bool(numbers) and 2 * known >= total and size + total - known <= most
        numbers.append(numbers[-1] + (not joins) if numbers else 0)
        shares.append(shared if joins else 0)
        size = size + total - known if joins else total
    return numbers, shares
