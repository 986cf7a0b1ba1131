"""SigLIP-2's vision tower, through transformers: one pooled hidden state a view.

The published SigLIP-2 checkpoints of a fixed resolution (`google/siglip2-*-patch16-256` and their like) are of
transformers' type `siglip`, as is our own tiny tower; only the NaFlex ones are of type `siglip2`. Both load.
Shape suffixes: V views, H, W pixels, D the tower's width.
"""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Siglip2VisionModel, SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

from r1pipe.files import whole
from r1pipe.models.encoders.pretrained import device, load_config, load_model, load_processor

_KINDS: dict[str, Any] = {
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "siglip2": Siglip2VisionModel,
    "siglip2_vision_model": Siglip2VisionModel,
}
_OTHER_TOWER = ("text_model.", "logit_scale", "logit_bias")


class ImageEncoder:
    """A frozen vision tower with the preprocessing that belongs to it."""

    def __init__(self, model: Any, processor: Any, *, batch_size: int = 64) -> None:
        self.model = model.to(device())
        self.processor = processor
        self.batch_size = batch_size

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

    def save(self, folder: Path) -> None:
        """Write configuration, weights and image processor, in transformers' own files."""
        with whole(folder) as draft:
            self.model.save_pretrained(draft)
            self.processor.save_pretrained(draft)

    @property
    def hidden_size(self) -> int:
        """D, the width of `encode`'s rows."""
        return int(self.model.config.hidden_size)

    def inputs(self, rgb_VHW3: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """What the tower takes, from the processor's own preprocessing."""
        batch = self.processor(images=list(rgb_VHW3), return_tensors="pt", input_data_format="channels_last")
        return dict(batch.to(device()))

    def pool(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The pooled hidden states `(V, D)`, with gradient."""
        output = self.model(**inputs)
        pooled: torch.Tensor = output.pooler_output
        # A tower without a pooling head is averaged over its patches.
        return pooled if pooled is not None else output.last_hidden_state.mean(dim=1)

    @torch.inference_mode()
    def encode(self, rgb_VHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One row a view: `(V, D)` pooled hidden states of `(V, H, W, 3)` colours."""
        parts = [
            self.pool(self.inputs(rgb_VHW3[i : i + self.batch_size])).float().cpu().numpy()
            for i in range(0, len(rgb_VHW3), self.batch_size)
        ]
        return np.concatenate([np.zeros((0, self.hidden_size), np.float32), *parts])
