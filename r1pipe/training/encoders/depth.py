"""Train a small Depth-Anything on rendered depth, with the scale-invariant logarithmic loss.

Eigen et al. 2014, eq. 4. Depth is in metres along a camera's forward; 0 means nothing was seen and counts nowhere.
Shape suffixes: V views, H, W pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from r1pipe.models.encoders.depth import MAX_DEPTH_M, DepthEncoder
from r1pipe.params.encoders import DepthBackbone
from r1pipe.training.encoders.loop import Log, fit, seeded

SCALE_FREEDOM = 0.5
"""λ: 1 forgives a wrong scale of the whole view altogether, 0 not at all."""

NEAREST_M = 0.01
"""Predictions are at least so far, for their logarithm."""


def train_depth(
    rgb_VHW3: NDArray[np.uint8], depth_VHW: NDArray[np.float32], params: DepthBackbone, *, seed: int, log: Log
) -> DepthEncoder:
    """A depth model of the sizes in `params`, trained on views and their depth."""
    with seeded(seed) as rng:
        encoder = DepthEncoder.new(
            image_size=min(rgb_VHW3.shape[1:3]),
            patch_size=params.patch_size,
            hidden_size=params.hidden_size,
            layers=params.layers,
        )
        _start_at(encoder, float(np.log(depth_VHW[depth_VHW > 0]).mean()))

        def loss() -> torch.Tensor:
            chosen = rng.integers(len(rgb_VHW3), size=params.batch_size)
            predicted = encoder.predict(encoder.inputs(rgb_VHW3[chosen]), depth_VHW.shape[1:])
            return silog(predicted, torch.from_numpy(depth_VHW[chosen]).to(predicted.device))

        fit([encoder.model], loss, steps=params.steps, learning_rate=params.learning_rate, log=log, description="depth")
    return encoder


def _start_at(encoder: DepthEncoder, log_depth: float) -> None:
    """Let the untrained head predict this depth everywhere: from half its range it does not find back in few steps."""
    share = torch.tensor(log_depth).exp() / MAX_DEPTH_M
    with torch.no_grad():
        encoder.model.head.conv3.bias.copy_(torch.logit(share))


def silog(predicted_VHW: torch.Tensor, depth_VHW: torch.Tensor) -> torch.Tensor:
    """The scale-invariant logarithmic loss over the pixels that have a depth."""
    seen = depth_VHW > 0
    error = predicted_VHW[seen].clamp(min=NEAREST_M).log() - depth_VHW[seen].log()
    return error.square().mean() - SCALE_FREEDOM * error.mean().square()


def evaluate_depth(
    encoder: DepthEncoder, rgb_VHW3: NDArray[np.uint8], depth_VHW: NDArray[np.float32]
) -> dict[str, float]:
    """Mean |error| over depth, beside that of the best constant for these very views."""
    predicted = encoder.depth(rgb_VHW3)
    if not encoder.is_metric:
        predicted = _aligned(predicted, depth_VHW)
    seen = depth_VHW > 0
    constant = np.full(int(seen.sum()), _best_constant(depth_VHW[seen]))
    return {
        "abs_rel": _abs_rel(predicted[seen], depth_VHW[seen]),
        "constant_abs_rel": _abs_rel(constant, depth_VHW[seen]),
    }


def _abs_rel(predicted: NDArray[np.floating], depth: NDArray[np.floating]) -> float:
    return float((np.abs(predicted - depth) / depth).mean())


def _best_constant(depth: NDArray[np.floating]) -> float:
    """What minimises the mean of |c - d| / d: the median with weights 1 / d."""
    ordered = np.sort(depth.astype(np.float64))
    weight = np.cumsum(1 / ordered)
    return float(ordered[np.searchsorted(weight, weight[-1] / 2)])


def _aligned(disparity_VHW: NDArray[np.float32], depth_VHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth from a relative model's disparity, scale and shift fitted a view (Ranftl et al. 2020, section 5)."""
    aligned = np.ones_like(depth_VHW)
    for view, (disparity, depth) in enumerate(zip(disparity_VHW, depth_VHW, strict=True)):
        seen = depth > 0
        if seen.sum() >= 2:
            scale, shift = np.polyfit(disparity[seen].astype(np.float64), 1 / depth[seen].astype(np.float64), 1)
            aligned[view] = 1 / np.clip(scale * disparity + shift, 1 / depth[seen].max(), None)
    return aligned
