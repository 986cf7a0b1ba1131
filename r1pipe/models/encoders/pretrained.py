"""What the encoders of views from transformers share; weights by hub id or path, all of them or an error.

Shape suffixes: V views, H, W pixels, D an encoder's width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor
from transformers.utils.logging import disable_progress_bar

from r1pipe.errors import MissingError, ModelError
from r1pipe.files import whole

disable_progress_bar()  # a bar a file of weights, also where there is no terminal


def device() -> torch.device:
    """Where an encoder runs: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class ViewEncoder(ABC):
    """A frozen model of views with the image processor that belongs to it."""

    def __init__(self, model: Any, processor: Any, *, batch_size: int = 32) -> None:
        self.model = model.to(device())
        self.processor = processor
        self.batch_size = batch_size

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """D, the width of `encode`'s rows."""

    @abstractmethod
    def pool(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """One row a view `(V, D)`, with gradient."""

    def save(self, folder: Path) -> None:
        """Write configuration, weights and image processor, in transformers' own files."""
        with whole(folder) as draft:
            self.model.save_pretrained(draft)
            self.processor.save_pretrained(draft)

    def inputs(self, rgb_VHW3: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """What the model takes, from the processor's own preprocessing."""
        batch = self.processor(images=list(rgb_VHW3), return_tensors="pt", input_data_format="channels_last")
        return dict(batch.to(device()))

    def batches(self, rgb_VHW3: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The views, `batch_size` at a time."""
        return [rgb_VHW3[i : i + self.batch_size] for i in range(0, len(rgb_VHW3), self.batch_size)]

    @torch.inference_mode()
    def encode(self, rgb_VHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What `pool` makes of the views `(V, H, W, 3)`: `(V, D)`."""
        parts = [self.pool(self.inputs(part)).float().cpu().numpy() for part in self.batches(rgb_VHW3)]
        return np.concatenate([np.zeros((0, self.hidden_size), np.float32), *parts])


def load_config(name: str | Path, revision: str | None, types: Sequence[str]) -> Any:
    """A checkpoint's configuration.

    Raises:
        MissingError: if neither the hub nor the disk has it.
        ModelError: if it is a model of another type than one of `types`.
    """
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise MissingError(f"Expected a checkpoint's folder at {name}, found none.")
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        raise MissingError(_missing("a config.json", name, revision, error)) from None
    except ValueError as error:
        raise ModelError(f"Expected a configuration of transformers at {name}, found: {_first(error)}.") from None
    if config.model_type not in types:
        raise ModelError(f"Expected a model of type {' or '.join(types)} at {name}, found {config.model_type}.")
    return config


def load_model(
    kind: Any, name: str | Path, revision: str | None, config: Any, *, ignored: Sequence[str] = ()
) -> torch.nn.Module:
    """The weights of a model of class `kind`, in evaluation mode, every one of them from the checkpoint.

    Args:
        kind: a `PreTrainedModel` class.
        name: a hub id or a local folder.
        revision: a commit, branch or tag of the hub.
        config: what `load_config` gave, or the part of it that `kind` takes.
        ignored: prefixes of weights that the checkpoint may hold beyond the model, such as another tower's.

    Raises:
        MissingError: if there are no weights.
        ModelError: if weights are missing, left over, or of another shape than the configuration says.
    """
    try:
        # Shapes that differ are reported, not raised, so that they join the others in one sentence below.
        model, report = kind.from_pretrained(
            name, revision=revision, config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except OSError as error:
        raise MissingError(_missing("weights", name, revision, error)) from None
    except SafetensorError as error:
        raise ModelError(f"Expected weights at {name}, found a file that safetensors cannot read: {error}.") from None
    _check(report, name, tuple(ignored))
    loaded: torch.nn.Module = model.eval().to(device())
    return loaded


def load_processor(name: str | Path, revision: str | None) -> Any:
    """A checkpoint's own image processor.

    Raises:
        MissingError: if the checkpoint has none.
    """
    try:
        return AutoImageProcessor.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise MissingError(_missing("an image processor", name, revision, error)) from None


def _check(report: Mapping[str, Any], name: str | Path, ignored: tuple[str, ...]) -> None:
    unexpected = [key for key in report["unexpected_keys"] if not key.startswith(ignored or ("\0",))]
    mismatched = [row[0] for row in report["mismatched_keys"]]
    found = {"missing": report["missing_keys"], "unexpected": unexpected, "of another shape": mismatched}
    wrong = [f"{len(keys)} {kind} (such as {sorted(keys)[0]})" for kind, keys in found.items() if keys]
    if wrong:
        raise ModelError(f"Expected weights that fit the configuration at {name}, found {', '.join(wrong)}.")


def _missing(what: str, name: str | Path, revision: str | None, error: Exception) -> str:
    at = f" at revision {revision}" if revision else ""
    return f"Expected {what} of {name}{at}, on this disk or on the Hugging Face hub, found none: {_first(error)}."


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
