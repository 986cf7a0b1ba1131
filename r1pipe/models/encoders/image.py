"""SigLIP-2's vision tower, through transformers: one pooled hidden state a view.

The published SigLIP-2 checkpoints of a fixed resolution (`google/siglip2-*-patch16-256` and their like) are of
transformers' type `siglip`, as is our own tiny tower; only the NaFlex ones are of type `siglip2`. Both load.
Shape suffixes: V views, D the tower's width.
"""

from pathlib import Path
from typing import Any, Self

import torch
from transformers import Siglip2VisionModel, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from r1pipe.models.encoders.pretrained import ViewEncoder, load_config, load_model, load_processor

_KINDS: dict[str, Any] = {
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip2": Siglip2VisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
}
_OTHER_TOWER = ("text_model.", "logit_scale", "logit_bias")


class ImageEncoder(ViewEncoder):
    """A frozen vision tower with the preprocessing that belongs to it."""

    @classmethod
    def new(cls, *, image_size: int, patch_size: int, hidden_size: int, layers: int) -> Self:
        """An untrained tower for square images of `image_size` pixels; weights from torch's generator."""
        config = SiglipVisionConfig(
            hidden_size=hidden_size,
            intermediate_size=4 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden_size // 32),
            image_size=image_size,
            patch_size=patch_size,
        )
        processor = SiglipImageProcessor(size={"height": image_size, "width": image_size})
        return cls(SiglipVisionModel(config), processor)

    @classmethod
    def load(cls, name: str | Path, revision: str | None = None) -> Self:
        """The tower of a checkpoint: a folder that `save` wrote, or any SigLIP or SigLIP-2 by hub id or path.

        Raises:
            MissingError: if configuration, weights or image processor are not there.
            ModelError: if they do not fit each other.
        """
        config = load_config(name, revision, tuple(_KINDS))
        vision = getattr(config, "vision_config", config)
        model = load_model(_KINDS[config.model_type], name, revision, vision, ignored=_OTHER_TOWER)
        return cls(model, load_processor(name, revision))

    @property
    def hidden_size(self) -> int:
        """D, the width of `encode`'s rows."""
        return int(self.model.config.hidden_size)

    def pool(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The tower's own pooled hidden states `(V, D)`, with gradient."""
        output = self.model(**inputs)
        pooled: torch.Tensor = output.pooler_output
        # A tower without a pooling head is averaged over its patches.
        return pooled if pooled is not None else output.last_hidden_state.mean(dim=1)
