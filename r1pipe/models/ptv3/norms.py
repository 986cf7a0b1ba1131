"""The norms of Point Transformer v3: plain ones, or one for each data set (Point Prompt Training, CVPR 2024).

Shape suffixes: N rows, B clouds, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from r1pipe.errors import DataError, ModelError
from r1pipe.models.ptv3.inputs import Domain
from r1pipe.models.ptv3.level import Level
from r1pipe.models.ptv3.rows import take

CONTEXT_CHANNELS = 256
"""Width of the context that modulates adaptive norms."""

_batch_norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


class ConditionedNorm(nn.Module):
    """One norm for each condition, and with `adaptive` a shift and a scale that the batch's context gives."""

    def __init__(self, norms: Sequence[nn.Module], channels: int, rule: "NormRule") -> None:
        super().__init__()
        self.rule = rule
        self.norm = nn.ModuleList(norms)
        if rule.adaptive:
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(CONTEXT_CHANNELS, 2 * channels))

    def forward(self, feat_NC: Tensor, level: Level) -> Tensor:
        """`(N, C)` to `(N, C)`."""
        condition, context_BD = self.rule.check(level)
        normed_NC: Tensor = self.norm[self.rule.conditions.index(condition)](feat_NC)
        if context_BD is None:
            return normed_NC
        shift_BC, scale_BC = self.modulation(context_BD).chunk(2, dim=1)
        if len(context_BD) > 1:
            shift_BC, scale_BC = take(shift_BC, level.batch), take(scale_BC, level.batch)
        modulated_NC: Tensor = normed_NC * (1 + scale_BC) + shift_BC
        return modulated_NC


@dataclass(frozen=True)
class NormRule:
    """Which norms a network has: the authors' arguments whose names begin with `pdnorm_`.

    Raises:
        ModelError: if conditioned norms are to share their statistics, or to differ by no condition.
    """

    bn: bool
    """Whether batch norms are conditioned."""

    ln: bool
    """Whether layer norms are."""

    decouple: bool
    adaptive: bool
    affine: bool
    conditions: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what the authors' code cannot run either."""
        if (self.bn or self.ln) and not (self.decouple and self.conditions):
            raise ModelError(
                "Expected pdnorm_decouple=True and at least one of pdnorm_conditions, found "
                f"{self.decouple} and {list(self.conditions)}: norms of several data sets keep their own statistics."
            )

    def batch_norm(self, channels: int) -> nn.Module:
        """The norm of embedding, pooling and unpooling."""
        if not self.bn:
            return _batch_norm(channels)
        norms = [_batch_norm(channels, affine=self.affine) for _ in self.conditions]
        return ConditionedNorm(norms, channels, self)

    def layer_norm(self, channels: int) -> nn.Module:
        """The norm of a block."""
        if not self.ln:
            return nn.LayerNorm(channels)
        norms = [nn.LayerNorm(channels, elementwise_affine=self.affine) for _ in self.conditions]
        return ConditionedNorm(norms, channels, self)

    def check(self, level: Level) -> Domain:
        """The batch's domain; its context only where norms are adaptive.

        Raises:
            DataError: if the batch names no known condition, or has no context of the right shape.
        """
        domain = level.domain
        if domain is None or domain.condition not in self.conditions:
            found = "none" if domain is None else domain.condition
            raise DataError(f"Expected a condition of {', '.join(self.conditions)}, found {found}.")
        if not self.adaptive:
            return Domain(domain.condition, None)
        shape = None if domain.context is None else tuple(domain.context.shape)
        if shape not in {(1, CONTEXT_CHANNELS), (len(level.counts), CONTEXT_CHANNELS)}:
            raise DataError(
                f"Expected a context of shape (1 or {len(level.counts)}, {CONTEXT_CHANNELS}), found {shape}."
            )
        return domain


def normalise(norm: nn.Module, feat_NC: Tensor, level: Level) -> Tensor:
    """Apply a norm of either kind, `(N, C)` to `(N, C)`."""
    normed_NC: Tensor = norm(feat_NC, level) if isinstance(norm, ConditionedNorm) else norm(feat_NC)
    return normed_NC
