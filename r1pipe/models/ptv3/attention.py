"""Attention within patches: runs of rows that follow each other on a space-filling curve.

Shape suffixes: N rows, C channels, S patch slots, P patches, K patch size, H heads, D head width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from r1pipe.errors import ModelError
from r1pipe.models.ptv3.level import Level, Patches
from r1pipe.models.ptv3.rows import take


class AttentionRule(NamedTuple):
    """What the attention of all blocks shares; the names are those of the authors' arguments."""

    qkv_bias: bool
    qk_scale: float | None
    attn_drop: float
    proj_drop: float
    enable_rpe: bool
    enable_flash: bool
    upcast_attention: bool


class RelativePositions(nn.Module):
    """A learned bias for how many voxels two rows of a patch lie apart along each axis, up to a bound."""

    def __init__(self, patch_size: int, num_heads: int) -> None:
        super().__init__()
        self.bound = int((4 * patch_size) ** (1 / 3) * 2)
        self.rpe_table = nn.Parameter(torch.empty(3 * (2 * self.bound + 1), num_heads))
        nn.init.trunc_normal_(self.rpe_table, std=0.02)

    def forward(self, grid_PK3: Tensor) -> Tensor:
        """Voxels of patches to what is added to their logits, `(P, H, K, K)`."""
        bias_PKKH = torch.zeros((), device=grid_PK3.device)
        for axis, place_PK in enumerate(grid_PK3.unbind(dim=2)):
            apart_PKK = (place_PK[:, :, None] - place_PK[:, None, :]).clamp(-self.bound, self.bound)
            row_PKK = apart_PKK + self.bound + axis * (2 * self.bound + 1)
            bias_PKKH = bias_PKKH + take(self.rpe_table, row_PKK)
        return bias_PKKH.permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Self-attention in the patches of one order."""

    def __init__(self, channels: int, num_heads: int, patch_size: int, *, order: int, rule: AttentionRule) -> None:
        super().__init__()
        if channels % num_heads:
            raise ModelError(f"Expected channels divisible by heads, found {channels} and {num_heads}.")
        if rule.enable_rpe and rule.enable_flash:
            raise ModelError(
                "Expected enable_flash=False with enable_rpe=True, found True: flash attention has no bias."
            )
        self.num_heads, self.head_width = num_heads, channels // num_heads
        self.patch_size = patch_size
        self.order = order
        self.rule = rule
        self.qkv = nn.Linear(channels, 3 * channels, bias=rule.qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(rule.proj_drop)
        self.rpe = RelativePositions(patch_size, num_heads) if rule.enable_rpe else None

    def forward(self, feat_NC: Tensor, level: Level) -> Tensor:
        """Mix rows of the same patch, `(N, C)`."""
        order = self.order % len(level.orders)
        # Without flash the authors' patches are no larger than the smallest cloud of the batch.
        size = self.patch_size if self.rule.enable_flash else min(self.patch_size, level.smallest)
        patches = level.patches(size)
        row_S = level.orders[order][patches.source]
        qkv_3PHKD = (
            take(self.qkv(feat_NC), row_S)
            .reshape(-1, patches.size, 3, self.num_heads, self.head_width)
            .permute(2, 0, 3, 1, 4)
        )
        mixed_PHKD = self._attend(qkv_3PHKD, self._bias(level, row_S, patches))
        mixed_SC = mixed_PHKD.transpose(1, 2).reshape(len(row_S), -1)
        return self.proj_drop(self.proj(take(mixed_SC, patches.slot[level.ranks[order]])))  # type: ignore[no-any-return]

    def _attend(self, qkv_3PHKD: Tensor, bias: Tensor | None) -> Tensor:
        """`(P, H, K, D)`. The softmax is in float32 whatever the type, which is all that `upcast_softmax` asks for."""
        q_PHKD, k_PHKD, v_PHKD = qkv_3PHKD.float() if self.rule.upcast_attention else qkv_3PHKD
        mixed_PHKD = scaled_dot_product_attention(
            q_PHKD,
            k_PHKD,
            v_PHKD,
            attn_mask=bias if bias is None or bias.dtype == torch.bool else bias.to(q_PHKD.dtype),
            dropout_p=self.rule.attn_drop if self.training else 0.0,
            scale=self.rule.qk_scale or None,
        )
        return mixed_PHKD.to(qkv_3PHKD.dtype)

    def _bias(self, level: Level, row_S: Tensor, patches: Patches) -> Tensor | None:
        """What is added to the logits: relative positions, or which slots of a patch to ignore; None where nothing."""
        if self.rpe is not None:
            return self.rpe(level.grid[row_S].view(-1, patches.size, 3))  # type: ignore[no-any-return]
        return None if patches.mask is None else patches.mask.view(-1, 1, 1, patches.size)
