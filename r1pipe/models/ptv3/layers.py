"""The layers of Point Transformer v3: embedding, block, pooling, unpooling.

Shape suffixes: N rows, M pooled rows, C channels, P patches, K patch size, H heads, D head width. The names of the
attributes are those of the authors' state dict.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from r1pipe.errors import ModelError
from r1pipe.models.ptv3.level import Level, Pooled
from r1pipe.models.ptv3.sparse import SubMConv3d

BATCH_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}


def take(feat_NC: Tensor, row_S: Tensor) -> Tensor:
    """The rows `(S, C)`; the gradient of `feat_NC[row_S]` is summed by racing CPU threads, that of a look-up is not."""
    return embedding(row_S, feat_NC)


class Rows(NamedTuple):
    """Features on their way through a stage."""

    feat: Tensor
    """`(N, C)`."""

    conv_input: Tensor
    """`(N, C)`: what the next block's convolution reads; not always `feat`, see `Block` and `Unpooling`."""


class BlockRule(NamedTuple):
    """What all blocks of a network share."""

    mlp_ratio: float
    qkv_bias: bool
    qk_scale: float | None
    attn_drop: float
    proj_drop: float
    pre_norm: bool
    stale_conv: bool
    """Whether convolutions read the MLP branch of the block before, as in v1.5.1."""


class BlockShape(NamedTuple):
    """What the blocks of a stage share."""

    channels: int
    num_heads: int
    patch_size: int
    rule: BlockRule

    @property
    def head_width(self) -> int:
        """Channels a head.

        Raises:
            ModelError: if the heads do not divide the channels.
        """
        if self.channels % self.num_heads:
            raise ModelError(f"Expected channels divisible by heads, found {self.channels} and {self.num_heads}.")
        return self.channels // self.num_heads


class Embedding(nn.Module):
    """Input features to the first stage's width: a 5x5x5 convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "conv": SubMConv3d(in_channels, channels, kernel_size=5, bias=False),
                "norm": nn.BatchNorm1d(channels, **BATCH_NORM),
                "act": nn.GELU(),
            }
        )

    def forward(self, feat_NC: Tensor, level: Level) -> Tensor:
        """`(N, in_channels)` to `(N, channels)`."""
        convolved_NC = level.sites.convolve(self.stem["conv"], feat_NC)  # type: ignore[arg-type]
        return self.stem["act"](self.stem["norm"](convolved_NC))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention within patches: runs of rows that follow each other on a space-filling curve."""

    def __init__(self, shape: BlockShape, order: int) -> None:
        super().__init__()
        self.shape = shape
        self.order = order
        self.head_width = shape.head_width
        self.qkv = nn.Linear(shape.channels, 3 * shape.channels, bias=shape.rule.qkv_bias)
        self.proj = nn.Linear(shape.channels, shape.channels)
        self.proj_drop = nn.Dropout(shape.rule.proj_drop)

    def forward(self, feat_NC: Tensor, level: Level) -> Tensor:
        """Mix rows of the same patch, `(N, C)`."""
        order = self.order % len(level.orders)
        patches = level.patches(self.shape.patch_size)
        row_S = level.orders[order][patches.source]
        q_PHKD, k_PHKD, v_PHKD = (
            take(self.qkv(feat_NC), row_S)
            .reshape(-1, patches.size, 3, self.shape.num_heads, self.head_width)
            .permute(2, 0, 3, 1, 4)
        )
        mixed_PHKD = scaled_dot_product_attention(
            q_PHKD,
            k_PHKD,
            v_PHKD,
            attn_mask=None if patches.mask is None else patches.mask.view(-1, 1, 1, patches.size),
            dropout_p=self.shape.rule.attn_drop if self.training else 0.0,
            scale=self.shape.rule.qk_scale,
        )
        mixed_SC = mixed_PHKD.transpose(1, 2).reshape(-1, self.shape.channels)
        return self.proj_drop(self.proj(take(mixed_SC, patches.slot[level.ranks[order]])))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        hidden = int(shape.channels * shape.rule.mlp_ratio)
        self.fc1 = nn.Linear(shape.channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, shape.channels)
        self.drop = nn.Dropout(shape.rule.proj_drop)

    def forward(self, feat_NC: Tensor) -> Tensor:
        """`(N, C)` to `(N, C)`."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(feat_NC)))))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """Drop a branch for single rows, and scale up those that stay (stochastic depth; per point, as the authors)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, feat_NC: Tensor) -> Tensor:
        """The branch, with rows at zero in training."""
        if not self.training or self.share == 0:
            return feat_NC
        keep = 1 - self.share
        return feat_NC * feat_NC.new_empty(len(feat_NC), 1).bernoulli_(keep) / keep


class Block(nn.Module):
    """Conditional positional encoding by convolution, attention, MLP."""

    def __init__(self, shape: BlockShape, *, order: int, drop_path: float) -> None:
        super().__init__()
        channels = shape.channels
        self.shape = shape
        self.cpe = nn.ModuleList(
            [
                SubMConv3d(channels, channels, kernel_size=3, bias=True),
                nn.Linear(channels, channels),
                nn.LayerNorm(channels),
            ]
        )
        self.norm1 = nn.Sequential(nn.LayerNorm(channels))
        self.attn = Attention(shape, order)
        self.norm2 = nn.Sequential(nn.LayerNorm(channels))
        self.mlp = nn.Sequential(Mlp(shape))
        self.drop_path = DropPath(drop_path)

    def forward(self, rows: Rows, level: Level) -> Rows:
        """One block.

        In v1.5.1 the block's last line changed nothing, so that the next convolution read the MLP branch instead of
        the sum (Pointcept issues 161, 215). The published weights were trained that way.
        """
        conv, linear, norm = self.cpe
        feat_NC = rows.feat + norm(linear(level.sites.convolve(conv, rows.conv_input)))  # type: ignore[arg-type]
        if not self.shape.rule.pre_norm:
            feat_NC = self.norm1(feat_NC + self.drop_path(self.attn(feat_NC, level)))
            feat_NC = self.norm2(feat_NC + self.drop_path(self.mlp(feat_NC)))
            return Rows(feat_NC, feat_NC)
        feat_NC = feat_NC + self.drop_path(self.attn(self.norm1(feat_NC), level))
        branch_NC = self.drop_path(self.mlp(self.norm2(feat_NC)))
        feat_NC = feat_NC + branch_NC
        return Rows(feat_NC, branch_NC if self.shape.rule.stale_conv else feat_NC)


class Pooling(nn.Module):
    """To a coarser level: the maximum of each cell's projected rows, then norm and activation."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(in_channels, channels)
        self.norm = nn.Sequential(nn.BatchNorm1d(channels, **BATCH_NORM))
        self.act = nn.GELU()

    def forward(self, feat_NC: Tensor, level: Level) -> tuple[Tensor, Pooled]:
        """`(N, C)` to `(M, C')`, and the coarser level."""
        pooled = level.pool(self.stride)
        max_MC = torch.segment_reduce(take(self.proj(feat_NC), pooled.by_cluster), "max", lengths=pooled.counts, axis=0)
        return self.act(self.norm(max_MC)), pooled


class Unpooling(nn.Module):
    """Back to a finer level: its own projected rows plus those of the cells that hold them."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = _projection(in_channels, channels)
        self.proj_skip = _projection(skip_channels, channels)

    def forward(self, feat_MC: Tensor, skip_NC: Tensor, cluster_N: Tensor) -> Rows:
        """`(M, C)` and the encoder's `(N, C')` to `(N, C'')`.

        The first convolution after it reads the skip branch alone, as in the authors' code (PointTransformerV3
        issues 65, 149): weights trained there need it.
        """
        skip_NC = self.proj_skip(skip_NC)
        return Rows(skip_NC + take(self.proj(feat_MC), cluster_N), skip_NC)


def _projection(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, channels), nn.BatchNorm1d(channels, **BATCH_NORM), nn.GELU())
