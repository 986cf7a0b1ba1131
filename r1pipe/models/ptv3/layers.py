"""The layers of Point Transformer v3: embedding, block, pooling, unpooling.

Shape suffixes: N rows, M pooled rows, C channels. The names of the attributes are those of the authors' state dict.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from r1pipe.models.ptv3.attention import Attention, AttentionRule
from r1pipe.models.ptv3.level import Level, Pooled
from r1pipe.models.ptv3.norms import NormRule, normalise
from r1pipe.models.ptv3.rows import take
from r1pipe.models.ptv3.sparse import SubMConv3d


class Rows(NamedTuple):
    """Features on their way through a stage."""

    feat: Tensor
    """`(N, C)`."""

    conv_input: Tensor
    """`(N, C)`: what the next block's convolution reads; not always `feat`, see `Block` and `Unpooling`."""


class BlockRule(NamedTuple):
    """What all blocks of a network share."""

    attention: AttentionRule
    norms: NormRule
    mlp_ratio: float
    pre_norm: bool
    is_stale: bool
    """Whether convolutions read the MLP branch of the block before, as in v1.5.1."""


class BlockShape(NamedTuple):
    """What the blocks of a stage share."""

    channels: int
    num_heads: int
    patch_size: int
    rule: BlockRule


class Embedding(nn.Module):
    """Input features to the first stage's width: a 5x5x5 convolution."""

    def __init__(self, in_channels: int, channels: int, norms: NormRule) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "conv": SubMConv3d(in_channels, channels, kernel_size=5, bias=False),
                "norm": norms.batch_norm(channels),
                "act": nn.GELU(),
            }
        )

    def forward(self, feat_NC: Tensor, level: Level) -> Tensor:
        """`(N, in_channels)` to `(N, channels)`."""
        convolved_NC = level.sites.convolve(self.stem["conv"], feat_NC)  # type: ignore[arg-type]
        return self.stem["act"](normalise(self.stem["norm"], convolved_NC, level))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        hidden = int(shape.channels * shape.rule.mlp_ratio)
        self.fc1 = nn.Linear(shape.channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, shape.channels)
        self.drop = nn.Dropout(shape.rule.attention.proj_drop)

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
        channels, rule = shape.channels, shape.rule
        self.rule = rule
        self.cpe = nn.ModuleList(
            [
                SubMConv3d(channels, channels, kernel_size=3, bias=True),
                nn.Linear(channels, channels),
                rule.norms.layer_norm(channels),
            ]
        )
        self.norm1 = nn.Sequential(rule.norms.layer_norm(channels))
        self.attn = Attention(channels, shape.num_heads, shape.patch_size, order=order, rule=rule.attention)
        self.norm2 = nn.Sequential(rule.norms.layer_norm(channels))
        self.mlp = nn.Sequential(Mlp(shape))
        self.drop_path = DropPath(drop_path)

    def forward(self, rows: Rows, level: Level) -> Rows:
        """One block."""
        conv, linear, norm = self.cpe
        convolved_NC = linear(level.sites.convolve(conv, rows.conv_input))  # type: ignore[arg-type]
        feat_NC = rows.feat + normalise(norm, convolved_NC, level)
        if self.rule.pre_norm:
            feat_NC = feat_NC + self.drop_path(self.attn(normalise(self.norm1[0], feat_NC, level), level))
            branch_NC = self.drop_path(self.mlp(normalise(self.norm2[0], feat_NC, level)))
            feat_NC = feat_NC + branch_NC
        else:
            feat_NC = normalise(self.norm1[0], feat_NC + self.drop_path(self.attn(feat_NC, level)), level)
            branch_NC = self.drop_path(self.mlp(feat_NC))
            feat_NC = normalise(self.norm2[0], feat_NC + branch_NC, level)
        return Rows(feat_NC, branch_NC if self._is_stale else feat_NC)

    @property
    def _is_stale(self) -> bool:
        """Whether the next convolution reads the MLP branch.

        In v1.5.1 the block's last line changed nothing, so that a convolution read what the last plain layer before
        it had made (Pointcept issues 161, 215): the branch, or the norm after the sum unless that was conditioned.
        The published weights were trained that way.
        """
        return self.rule.is_stale and (self.rule.pre_norm or self.rule.norms.ln)


class Pooling(nn.Module):
    """To a coarser level: the maximum of each cell's projected rows, then norm and activation."""

    def __init__(self, in_channels: int, channels: int, stride: int, norms: NormRule) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(in_channels, channels)
        self.norm = nn.Sequential(norms.batch_norm(channels))
        self.act = nn.GELU()

    def forward(self, feat_NC: Tensor, pooled: Pooled) -> Tensor:
        """`(N, C)` to `(M, C')`."""
        max_MC = torch.segment_reduce(take(self.proj(feat_NC), pooled.by_cluster), "max", lengths=pooled.counts, axis=0)
        return self.act(normalise(self.norm[0], max_MC, pooled.level))  # type: ignore[no-any-return]


class Skip(NamedTuple):
    """What an encoder stage leaves for the decoder stage of its level."""

    feat: Tensor
    """`(N, C)`."""

    level: Level

    cluster: Tensor
    """`(N,)`, the coarser row that holds each row."""


class Unpooling(nn.Module):
    """Back to a finer level: its own projected rows plus those of the cells that hold them."""

    def __init__(self, in_channels: int, skip_channels: int, channels: int, norms: NormRule) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(in_channels, channels), norms.batch_norm(channels), nn.GELU())
        self.proj_skip = nn.Sequential(nn.Linear(skip_channels, channels), norms.batch_norm(channels), nn.GELU())

    def forward(self, feat_MC: Tensor, level: Level, skip: Skip) -> Rows:
        """`(M, C)` of a level and what its encoder stage left to `(N, C')`.

        The first convolution after it reads the skip branch alone, as in the authors' code (PointTransformerV3
        issues 65, 149): weights trained there need it.
        """
        skip_NC = _project(self.proj_skip, skip.feat, skip.level)
        return Rows(skip_NC + take(_project(self.proj, feat_MC, level), skip.cluster), skip_NC)


def _project(layers: nn.Sequential, feat_NC: Tensor, level: Level) -> Tensor:
    linear, norm, act = layers
    return act(normalise(norm, linear(feat_NC), level))  # type: ignore[no-any-return]
