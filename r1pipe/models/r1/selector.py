"""Dynamic view selection: which candidate views a question needs, with weights that learn (paper Eq. 6-7).

    U(v) = w_t S_text3d + w_c S_image3d + w_clip S_clip,   w_c + w_clip = 1

Shape suffixes: B batch, V candidate views, K kept views.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from r1pipe.models.r1.configuration import R1Config

TEXT_WEIGHT = 0.3
"""Where the L2 term pulls w_t (paper, section 3.3)."""


class ViewWeights(NamedTuple):
    """The three weights of the utility, scalars."""

    text3d: Tensor
    image3d: Tensor
    clip: Tensor


class _Pull(torch.autograd.Function):
    """The identity, whose gradient is that of a loss with `strength * (w - target)^2` added.

    Trainers compute the loss themselves, so a term added in `forward` would be lost in some of them; the gradient is not.
    It is added once a backward pass.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.strength = strength
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] + 2 * ctx.strength * (weight - TEXT_WEIGHT), None


class ViewSelector(nn.Module):
    """Scores the candidates and keeps the best, so that gradients reach the weights through the choice."""

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.text_weight = nn.Parameter(torch.tensor(TEXT_WEIGHT))
        self.clip_logit = nn.Parameter(torch.tensor(0.0))
        self.strategy, self.num_kept = config.view_strategy, config.num_kept_views
        self.fixed = tuple(config.view_weights)
        self.temperature, self.pull = config.view_temperature, config.view_weight_pull

    def weights(self) -> ViewWeights:
        """w_t, w_c, w_clip; the last two sum to one by construction."""
        clip = torch.sigmoid(self.clip_logit)
        text: Tensor = _Pull.apply(self.text_weight, self.pull)
        return ViewWeights(text, 1 - clip, clip)

    def utility(self, scores_BV3: Tensor, cameras_BV6: Tensor) -> Tensor:
        """`(B, V)`: how useful each view is under the strategy.

        `scores_BV3` are text3d, image3d and clip; `cameras_BV6` position and forward axis, z up.
        """
        if self.strategy in ("learnt", "all"):
            return scores_BV3 @ torch.stack(self.weights()).to(scores_BV3.dtype)
        if self.strategy == "fixed":
            return scores_BV3 @ scores_BV3.new_tensor(self.fixed)
        if self.strategy == "horizontal":
            return -cameras_BV6[..., 5].abs()
        if self.strategy == "bottom":
            return -cameras_BV6[..., 2]
        # The millimetres of a camera draw the lot: the same views of a room in training, evaluation and serving.
        return (cameras_BV6.float().sum(dim=-1) * 1e3) % 1

    def best(self, scores_BV3: Tensor, cameras_BV6: Tensor) -> Tensor:
        """`(B, K)`: the views that are kept, the most useful first."""
        return (self.utility(scores_BV3, cameras_BV6) / self.temperature).topk(self.num_kept, dim=1).indices

    def forward(self, scores_BV3: Tensor, cameras_BV6: Tensor) -> Tensor:
        """`(B, K, V)` choice: row k is one-hot at the k-th best view; straight-through in the backward pass.

        Each choice is a softmax over the views that are left (successive softmax), replaced by its argmax going forward.
        """
        utility_BV = self.utility(scores_BV3, cameras_BV6) / self.temperature
        best_BK = self.best(scores_BV3, cameras_BV6)
        taken_BV = torch.zeros_like(utility_BV)
        choices = []
        for best_B1 in best_BK.split(1, dim=1):
            soft_BV = utility_BV.masked_fill(taken_BV.bool(), float("-inf")).softmax(dim=1)
            hard_BV = torch.zeros_like(utility_BV).scatter(1, best_B1, 1.0)
            choices.append(hard_BV + soft_BV - soft_BV.detach())
            taken_BV = taken_BV + hard_BV
        return torch.stack(choices, dim=1)
