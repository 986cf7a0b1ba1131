"""Depth-Anything v2, through transformers: its backbone's hidden states, not its depth picture, are the features.

Shape suffixes: V views, H, W pixels, D the backbone's width.
"""

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

from r1pipe.models.encoders.pretrained import ViewEncoder, load_config, load_model, load_processor

NUM_STAGES = 4
"""Layers of the backbone that the depth head reads, as in Depth-Anything."""

MAX_DEPTH_M = 20
"""Range of the metric head; Depth-Anything v2's value for rooms."""


class DepthEncoder(ViewEncoder):
    """A frozen depth model with the preprocessing that belongs to it."""

    @classmethod
    def new(cls, *, image_size: int, patch_size: int, hidden_size: int, layers: int) -> Self:
        """An untrained metric model for square images of `image_size` pixels; weights from torch's generator."""
        backbone = Dinov2Config(
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden_size // 16),
            image_size=image_size,
            patch_size=patch_size,
            reshape_hidden_states=False,
        )
        backbone.set_output_features_output_indices(out_features=None, out_indices=_stages(layers))
        config = DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=patch_size,
            reassemble_hidden_size=hidden_size,
            neck_hidden_sizes=[hidden_size] * NUM_STAGES,
            fusion_hidden_size=32,
            head_hidden_size=16,
            depth_estimation_type="metric",
            max_depth=MAX_DEPTH_M,
        )
        size = {"height": image_size, "width": image_size}
        return cls(DepthAnythingForDepthEstimation(config), DPTImageProcessor(size=size, ensure_multiple_of=patch_size))

    @classmethod
    def load(cls, name: str | Path, revision: str | None = None) -> Self:
        """A folder that `save` wrote, or any Depth-Anything of transformers by hub id or path.

        Raises:
            MissingError: if configuration, weights or image processor are not there.
            ModelError: if they do not fit each other.
        """
        config = load_config(name, revision, ("depth_anything",))
        model = load_model(DepthAnythingForDepthEstimation, name, revision, config)
        return cls(model, load_processor(name, revision))

    @property
    def hidden_size(self) -> int:
        """D, the width of `encode`'s rows."""
        return int(self.model.config.backbone_config.hidden_size)

    @property
    def is_metric(self) -> bool:
        """Whether the depth picture is in metres; otherwise it is a disparity of unknown scale and shift."""
        return bool(self.model.config.depth_estimation_type == "metric")

    def predict(self, inputs: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """The depth picture `(V, H, W)` at `size` (H, W), with gradient: metres where the head is metric."""
        depth_VHW: torch.Tensor = self.model(**inputs).predicted_depth
        return interpolate(depth_VHW[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    @torch.inference_mode()
    def depth(self, rgb_VHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The depth picture `(V, H, W)` of `(V, H, W, 3)` colours."""
        size = (rgb_VHW3.shape[1], rgb_VHW3.shape[2])
        parts = [self.predict(self.inputs(part), size).float().cpu().numpy() for part in self.batches(rgb_VHW3)]
        return np.concatenate([np.zeros((0, *size), np.float32), *parts])

    def pool(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The backbone's last hidden states, averaged over the patches, `(V, D)`, with gradient."""
        hidden = self.model.backbone(**inputs).feature_maps[-1]
        if hidden.ndim == 4:  # (V, D, h, w), where the checkpoint's backbone reshapes
            return torch.as_tensor(hidden.mean(dim=(2, 3)))
        return torch.as_tensor(hidden[:, 1:].mean(dim=1))  # the first token is no patch


def _stages(layers: int) -> list[int]:
    """Which layers the head reads: evenly spread, the last included; repeated layers are not allowed."""
    return [max(1, round(layers * (i + 1) / NUM_STAGES)) for i in range(NUM_STAGES)]
