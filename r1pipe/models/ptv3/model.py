"""Point Transformer v3: an encoder and a decoder over serialized voxels (PT-v3m1).

Shape suffixes: N input voxels, M voxels of the coarsest level, B clouds, C channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from r1pipe.errors import DataError, ModelError
from r1pipe.models.ptv3.attention import AttentionRule
from r1pipe.models.ptv3.inputs import features
from r1pipe.models.ptv3.layers import Block, BlockRule, BlockShape, Embedding, Pooling, Rows, Skip, Unpooling
from r1pipe.models.ptv3.level import Level
from r1pipe.models.ptv3.norms import NormRule
from r1pipe.models.ptv3.serialization import CURVES

Semantics = Literal["v1.5.1", "current"]


@dataclass(frozen=True)
class Encoded:
    """A batch of clouds with features: rows in input order, or those of the coarsest level (`enc_mode`)."""

    feat: Tensor
    """`(N, C)`, float32."""

    coord: Tensor
    """`(N, 3)`, metres; the mean of what was pooled."""

    grid_coord: Tensor
    """`(N, 3)`, int64."""

    batch: Tensor
    """`(N,)`, int64."""

    offset: Tensor
    """`(B,)`, int64, cumulative ends of the clouds."""


class PointTransformerV3(nn.Module):
    """The backbone, with the names of the authors' arguments and state dict and their ScanNet defaults.

    Orders are shuffled in training only; the authors' pooling shuffles in evaluation too, whatever its model was told
    (PointTransformerV3 issue 76). A decoder stage may have another patch size than its encoder stage; theirs would
    keep the encoder's padding.

    Args:
        enable_flash: patches as the authors' flash attention has them: no larger than a cloud, and a cloud's features
            do not depend on its company. False: at each level no larger than the smallest cloud of the batch, the
            same size for all. Both compute exact attention in the type of the features.
        enable_rpe: relative positions, which the authors' flash attention cannot add; needs `enable_flash=False`.
        upcast_attention: attention in float32 for weights in half precision.
        upcast_softmax: changes nothing, for the softmax here is always in float32.
        cls_mode: leave the decoder out; `enc_mode` is its newer name.
        pdnorm_bn: one batch norm for each of `pdnorm_conditions`; `pdnorm_ln` one layer norm.
        pdnorm_decouple: must be True with these: without it the authors' code has no norm to call.
        semantics: "v1.5.1" for the published weights, "current" for what the authors' code computes since.
        extended_depth: count grid bits as Pointcept does from 1.6 on (see `Level.read`).

    Raises:
        ModelError: for arguments that do not fit together.
    """

    def __init__(
        self,
        in_channels: int = 6,
        order: Sequence[str] = tuple(CURVES),
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (2, 2, 2, 6, 2),
        enc_channels: Sequence[int] = (32, 64, 128, 256, 512),
        enc_num_head: Sequence[int] = (2, 4, 8, 16, 32),
        enc_patch_size: Sequence[int] = (1024, 1024, 1024, 1024, 1024),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 64, 128, 256),
        dec_num_head: Sequence[int] = (4, 4, 8, 16),
        dec_patch_size: Sequence[int] = (1024, 1024, 1024, 1024),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        cls_mode: bool = False,
        pdnorm_bn: bool = False,
        pdnorm_ln: bool = False,
        pdnorm_decouple: bool = True,
        pdnorm_adaptive: bool = False,
        pdnorm_affine: bool = True,
        pdnorm_conditions: Sequence[str] = ("ScanNet", "S3DIS", "Structured3D"),
        *,
        enc_mode: bool = False,
        semantics: Semantics = "current",
        extended_depth: bool = False,
    ) -> None:
        super().__init__()
        _check_lengths(
            len(enc_depths),
            encoder={"enc_channels": enc_channels, "enc_num_head": enc_num_head, "enc_patch_size": enc_patch_size},
            decoder={
                "stride": stride,
                "dec_depths": dec_depths,
                "dec_channels": dec_channels,
                "dec_num_head": dec_num_head,
                "dec_patch_size": dec_patch_size,
            },
            is_encoder_only=cls_mode or enc_mode,
        )
        if semantics not in get_args(Semantics):
            raise ModelError(f"Expected semantics of {', '.join(get_args(Semantics))}, found {semantics}.")
        self.in_channels = in_channels
        self.order = _known_orders(order)
        self.shuffle_orders = shuffle_orders
        self.extended_depth = extended_depth
        self.enc_mode = cls_mode or enc_mode
        self.norms = NormRule(
            pdnorm_bn, pdnorm_ln, pdnorm_decouple, pdnorm_adaptive, pdnorm_affine, tuple(pdnorm_conditions)
        )
        attention = AttentionRule(qkv_bias, qk_scale, attn_drop, proj_drop, enable_rpe, enable_flash, upcast_attention)
        rule = BlockRule(attention, self.norms, mlp_ratio, pre_norm, semantics == "v1.5.1")

        self.embedding = Embedding(in_channels, enc_channels[0], self.norms)
        self.enc = nn.ModuleDict()
        for s, drops in enumerate(_stage_drops(drop_path, enc_depths)):
            shape = BlockShape(enc_channels[s], enc_num_head[s], enc_patch_size[s], rule)
            down = Pooling(enc_channels[s - 1], enc_channels[s], stride[s - 1], self.norms) if s else None
            self.enc[f"enc{s}"] = Stage(shape, drops, down=down)
        if self.enc_mode:
            return
        self.dec = nn.ModuleDict()
        inner = [*dec_channels, enc_channels[-1]]
        for s, drops in reversed(list(enumerate(_stage_drops(drop_path, dec_depths)))):
            shape = BlockShape(dec_channels[s], dec_num_head[s], dec_patch_size[s], rule)
            up = Unpooling(inner[s + 1], enc_channels[s], dec_channels[s], self.norms)
            self.dec[f"dec{s}"] = Stage(shape, drops[::-1], up=up)

    def forward(self, cloud: Mapping[str, Any]) -> Encoded:
        """Encode a batch of clouds.

        Args:
            cloud: `coord` (N, 3), averaged at pooling only; `grid_coord` (N, 3), integers from 0 on, unique in a cloud,
                or `grid_size`, metres, to cut `coord` by; `feat` (N, in_channels); `offset` (B,), the cumulative ends
                of the clouds, or `batch` (N,), the cloud of each row; for conditioned norms `condition`, a name or a
                list whose first name counts, and `context` (1 or B, 256) if they are adaptive.

        Raises:
            DataError: if these do not hold.
        """
        level = self._enter(Level.read(cloud, self.order, extended_depth=self.extended_depth))
        feat_NC = features(cloud, channels=self.in_channels, dtype=next(self.parameters()).dtype)
        feat_NC = self.embedding(feat_NC, level)
        skips: list[Skip] = []
        for stage in self.encoder_stages:
            if stage.down is not None:
                pooled = level.pool(stage.down.stride)
                skips.append(Skip(feat_NC, level, pooled.cluster))
                level = self._enter(pooled.level)
                feat_NC = stage.down(feat_NC, pooled)
            feat_NC = stage(Rows(feat_NC, feat_NC), level)
        for stage, skip in zip(self.decoder_stages, reversed(skips), strict=not self.enc_mode):
            feat_NC, level = stage(stage.up(feat_NC, level, skip), skip.level), skip.level
        return Encoded(feat_NC, level.coord, level.grid, level.batch, level.counts.cumsum(0))

    @property
    def encoder_stages(self) -> list["Stage"]:
        """Finest first."""
        return cast("list[Stage]", list(self.enc.values()))

    @property
    def decoder_stages(self) -> list["Stage"]:
        """Coarsest first; none in `enc_mode`."""
        return [] if self.enc_mode else cast("list[Stage]", list(self.dec.values()))

    def _enter(self, level: Level) -> Level:
        """The level, in training with its orders shuffled."""
        if not self.training:
            return level
        if len(level.batch) < 2:
            raise DataError("Expected at least 2 voxels at every level in training, for batch norm; found 1.")
        return level.shuffled() if self.shuffle_orders else level


class Stage(nn.Module):
    """The way into a level, `down` in the encoder and `up` in the decoder, and its blocks."""

    down: Pooling | None
    up: Unpooling

    def __init__(
        self, shape: BlockShape, drops: Sequence[float], *, down: Pooling | None = None, up: Unpooling | None = None
    ) -> None:
        super().__init__()
        self.down = down
        if up is not None:
            self.up = up
        for i, drop_path in enumerate(drops):
            self.add_module(f"block{i}", Block(shape, order=i, drop_path=drop_path))

    def forward(self, rows: Rows, level: Level) -> Tensor:
        """The blocks, one after the other."""
        for block in self.blocks:
            rows = block(rows, level)
        return rows.feat

    @property
    def blocks(self) -> list[Block]:
        """First to last."""
        return [child for child in self.children() if isinstance(child, Block)]


def _stage_drops(drop_path: float, depths: Sequence[int]) -> Iterator[list[float]]:
    """Drop rates that rise from 0 to `drop_path` over all blocks, stage by stage."""
    rates = torch.linspace(0, drop_path, sum(depths)).tolist()
    for s, depth in enumerate(depths):
        start = sum(depths[:s])
        yield rates[start : start + depth]


def _known_orders(order: Sequence[str]) -> tuple[str, ...]:
    names = (order,) if isinstance(order, str) else tuple(order)
    if not names or not set(names) <= set(CURVES):
        raise ModelError(f"Expected orders of {', '.join(CURVES)}, found {list(names)}.")
    return names


def _check_lengths(
    stages: int, *, encoder: Mapping[str, Sequence[int]], decoder: Mapping[str, Sequence[int]], is_encoder_only: bool
) -> None:
    """Refuse sequences of the wrong length: one number an encoder stage, one fewer for strides and the decoder."""
    between = {"stride": decoder["stride"]} if is_encoder_only else decoder
    expected = dict.fromkeys(encoder, stages) | dict.fromkeys(between, stages - 1)
    for name, numbers in {**encoder, **between}.items():
        if len(numbers) != expected[name]:
            raise ModelError(
                f"Expected {expected[name]} numbers in {name} for {stages} encoder stages, found {len(numbers)}."
            )
