"""CLIP, through open_clip: texts, views and their patches in one space.

A folder is open_clip's own format (`open_clip_config.json`, `open_clip_model.safetensors`), so what we write also
opens with `open_clip.create_model_from_pretrained("local-dir:<folder>")`.
Shape suffixes: N texts, K pieces, L tokens, V views, H, W pixels, h, w patches, C the space's width.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.model import set_model_preprocess_cfg
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import VisionTransformer
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.nn.functional import normalize

from r1pipe.errors import MissingError, ModelError
from r1pipe.files import read_json, whole, write_json
from r1pipe.models.encoders.pretrained import device

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
RESIZE = "squash"
"""The whole view is seen: open_clip's default would crop a wide view, and its patches could not be lifted to 3D."""

Float32 = NDArray[np.float32]


class Clip:
    """A frozen CLIP with its tokenizer and its preprocessing."""

    def __init__(self, model: Any, config: Mapping[str, Any], *, batch_size: int = 128) -> None:
        """Wrap an open_clip model.

        Args:
            model: with a vision transformer and a text transformer.
            config: open_clip's `model_cfg`.
            batch_size: texts or views a forward pass.

        Raises:
            ModelError: if the vision tower has no patches, or the texts are not read by CLIP's own tokenizer.
        """
        if not isinstance(model.visual, VisionTransformer):
            raise ModelError(f"Expected a CLIP with a vision transformer, found {type(model.visual).__name__}.")
        if config["text_cfg"].get("hf_tokenizer_name"):
            raise ModelError(
                f"Expected a CLIP with CLIP's own tokenizer, found {config['text_cfg']['hf_tokenizer_name']}."
            )
        self.model = model.to(device())
        self.config = config
        self.batch_size = batch_size
        self.tokenizer = SimpleTokenizer()
        self.preprocess = image_transform_v2(
            PreprocessCfg(**{**model.visual.preprocess_cfg, "resize_mode": RESIZE}), is_train=False
        )

    @classmethod
    def new(cls, config: Mapping[str, Any]) -> Self:
        """An untrained model of open_clip's `model_cfg`; weights from torch's generator."""
        model = open_clip.CLIP(**config)
        size = config["vision_cfg"]["image_size"]
        set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=(size, size))))
        return cls(model, config)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote, or any folder in open_clip's format.

        Raises:
            MissingError: if configuration or weights are not there.
            ModelError: if they do not fit each other.
        """
        config = read_json(folder / CONFIG)
        if not any(folder.glob("open_clip_*.safetensors")) and not any(folder.glob("open_clip_*.bin")):
            raise MissingError(f"Expected CLIP's weights at {folder / WEIGHTS}, found no such file.")
        return cls(_create(f"local-dir:{folder}", None), config["model_cfg"])

    @classmethod
    def load_published(cls, model: str, pretrained: str | None) -> Self:
        """A published model by open_clip's name and tag, a name and a local file, or a `local-dir:` or `hf-hub:`.

        Raises:
            MissingError: if open_clip knows no such name or tag, or cannot get the weights.
            ModelError: if the weights do not fit the model or its activation, or it is no plain CLIP with patches.
        """
        if model.startswith("local-dir:"):
            return cls.load(Path(model.removeprefix("local-dir:")))
        config = open_clip.get_model_config(model)
        if config is None:
            raise MissingError(f"Expected a model that open_clip knows, found {model!r}; see open_clip.list_models().")
        _check_activation(model, pretrained, config)
        return cls(_create(model, pretrained), config)

    def save(self, folder: Path) -> None:
        """Write configuration and weights, in open_clip's own files."""
        visual = self.model.visual
        preprocess = {key: visual.preprocess_cfg[key] for key in ("mean", "std", "interpolation")}
        with whole(folder) as draft:
            draft.mkdir()
            config = {"model_cfg": self.config, "preprocess_cfg": {**preprocess, "resize_mode": RESIZE}}
            write_json(draft / CONFIG, json.loads(json.dumps(config)))
            weights = {name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(weights, draft / WEIGHTS)

    @property
    def dim(self) -> int:
        """C, the width of the shared space."""
        return int(self.config["embed_dim"])

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors `(N, C)`, with gradient; a text longer than the context is the mean of its pieces."""
        pieces_KL, owner_K = self._pieces(texts)
        features_KC = normalize(self.model.encode_text(pieces_KL), dim=-1)
        sums_NC = features_KC.new_zeros(len(texts), features_KC.shape[1]).index_add(0, owner_K, features_KC)
        return normalize(sums_NC, dim=-1)

    def _pieces(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token rows `(K, L)` that hold every token of every text, and the text `(K,)` that each belongs to."""
        length = self.model.context_length
        rows, owner = [], []
        for number, text in enumerate(texts):
            tokens = self.tokenizer.encode(text)
            for start in range(0, max(len(tokens), 1), length - 2):
                piece = tokens[start : start + length - 2]
                row = [self.tokenizer.sot_token_id, *piece, self.tokenizer.eot_token_id]
                rows.append(row + [0] * (length - len(row)))
                owner.append(number)
        return torch.tensor(rows, device=device()), torch.tensor(owner, device=device())

    def inputs(self, rgb_VHW3: NDArray[np.uint8]) -> torch.Tensor:
        """Pixel values `(V, 3, H, W)`, from open_clip's own preprocessing."""
        return torch.stack([self.preprocess(Image.fromarray(rgb)) for rgb in rgb_VHW3]).to(device())

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Float32:
        """One unit vector a text, `(N, C)`; a text longer than the context is split and averaged, never cut."""
        step = self.batch_size
        parts = [self.text_features(texts[i : i + step]).float().cpu().numpy() for i in range(0, len(texts), step)]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *parts])

    @torch.inference_mode()
    def encode_images(self, rgb_VHW3: NDArray[np.uint8]) -> Float32:
        """One unit vector a view, `(V, C)`."""
        parts = [
            self.model.encode_image(pixels, normalize=True).float().cpu().numpy() for pixels in self._batches(rgb_VHW3)
        ]
        return np.concatenate([np.zeros((0, self.dim), np.float32), *parts])

    @torch.inference_mode()
    def encode_patches(self, rgb_VHW3: NDArray[np.uint8]) -> Float32:
        """One unit vector a patch, `(V, h, w, C)`: the last layer's patches, through CLIP's own projection."""
        parts = [self._patches(pixels).float().cpu().numpy() for pixels in self._batches(rgb_VHW3)]
        return np.concatenate([np.zeros((0, *self.model.visual.grid_size, self.dim), np.float32), *parts])

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        visual = self.model.visual
        output = visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, intermediates_only=True)
        hidden_VhwD = output["image_intermediates"][-1].permute(0, 2, 3, 1)
        return normalize(hidden_VhwD @ visual.proj, dim=-1)

    def _batches(self, rgb_VHW3: NDArray[np.uint8]) -> list[torch.Tensor]:
        return [self.inputs(rgb_VHW3[i : i + self.batch_size]) for i in range(0, len(rgb_VHW3), self.batch_size)]


def _check_activation(model: str, pretrained: str | None, config: Mapping[str, Any]) -> None:
    """Refuse what open_clip only warns of: weights trained with QuickGELU in a model with GELU, or the reverse."""
    tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    if tag and tag.get("quick_gelu", False) != config.get("quick_gelu", False):
        plain = model.removesuffix("-quickgelu")
        other = f"{plain}-quickgelu" if model == plain else plain
        raise ModelError(
            f"Expected CLIP {other} for the weights {pretrained}, found {model}, which has another activation."
        )


def _create(model: str, pretrained: str | None) -> Any:
    """open_clip's model with every weight from the checkpoint."""
    try:
        return open_clip.create_model_from_pretrained(model, pretrained, return_transform=False).eval()
    except (RuntimeError, SafetensorError) as error:
        sentence = str(error).strip().splitlines()[0].rstrip(".:")
        # open_clip raises RuntimeError for a tag it does not know as well as for weights of another shape.
        kind = ModelError if "state_dict" in str(error) or isinstance(error, SafetensorError) else MissingError
        raise kind(f"Expected the weights of CLIP {model} ({pretrained}), found: {sentence}.") from None
    except OSError as error:
        raise MissingError(f"Expected the weights of CLIP {model} ({pretrained}), found none: {error}.") from None
