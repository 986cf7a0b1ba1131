"""Which parts of the model a profile trains, how large they are, and what they take in memory.

Sizes are arithmetic from configurations: nothing is built or loaded, so that the largest profile is examined at once.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from r1pipe.doctor.weights import find_file
from r1pipe.errors import DataError
from r1pipe.files import read_json
from r1pipe.params import Params
from r1pipe.params.model import Model
from r1pipe.params.training import Lora, Training
from r1pipe.response import TAGS

BYTES = {"float32": 4, "bfloat16": 2}
TRAINED_BYTES = 4 * 4
"""Of a trained weight: itself, its gradient and Adam's two moments, each in float32."""

NUM_BANDS = 6
"""Octaves of the Fourier features of a place; a number of it becomes 2 * 6 + 1."""

Group = Literal["projectors", "selector", "language", "gains", "adapters", "tokens"]


class Part(NamedTuple):
    """A part of the model that is trained."""

    name: str
    group: Group
    weights: int


class Plan(NamedTuple):
    """What one stage trains."""

    trained: dict[Part, float]
    """Each part with its learning rate; float32."""

    frozen: int
    """Weights of the language model that are not trained."""

    frozen_dtype: str

    @property
    def frozen_bytes(self) -> int:
        """Memory of what is frozen."""
        return self.frozen * BYTES[self.frozen_dtype]

    @property
    def trained_bytes(self) -> int:
        """Memory of what is trained, with gradients and Adam's moments."""
        return sum(part.weights for part in self.trained) * TRAINED_BYTES


class Language(NamedTuple):
    """Sizes of a language model; its biases, which are few, are left out."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    query_width: int
    key_width: int
    num_word_matrices: int
    """One where words in and out share it, else two."""

    @property
    def gains(self) -> int:
        """Weights of its normalisation layers."""
        return (2 * self.num_hidden_layers + 1) * self.hidden_size

    @property
    def weights(self) -> int:
        """All of them."""
        attention = 2 * self.hidden_size * (self.query_width + self.key_width)
        blocks = self.num_hidden_layers * (attention + 3 * self.hidden_size * self.intermediate_size)
        return blocks + self.gains + self.num_word_matrices * self.vocabulary * self.hidden_size

    def adapters(self, lora: Lora) -> int:
        """Weights of adapters on q, k, v, o, gate, up and down of the last blocks."""
        attention = 4 * self.hidden_size + 2 * self.query_width + 2 * self.key_width
        feed_forward = 3 * (self.hidden_size + self.intermediate_size)
        return lora.last_blocks * lora.r * (attention + feed_forward)


def plan(params: Params, training: Training, home: Path) -> Plan:
    """What `sft` or `grpo` trains; local paths are relative to the folder `home`.

    Raises:
        DataError: if the language model's configuration lacks a size.
    """
    language = language_sizes(params.model, home)
    parts = projectors(params, language.hidden_size)
    if params.model.view_strategy == "learnt":
        parts.append(Part("view selector", "selector", 2))
    if training.lora is None:
        parts.append(Part("language model", "language", language.weights - language.gains))
        parts.append(Part("gains of normalisation", "gains", language.gains))
        frozen = 0
    else:
        rows = (added_tokens(params.model) - 1) * language.num_word_matrices  # a placeholder is never said
        parts.append(
            Part(f"adapters, last {training.lora.last_blocks} blocks", "adapters", language.adapters(training.lora))
        )
        if params.model.language is not None:
            parts.append(Part("rows of added tokens", "tokens", rows * language.hidden_size))
        frozen = language.weights
    return Plan({part: _learning_rate(training, part) for part in parts}, frozen, params.model.frozen_dtype)


def _learning_rate(training: Training, part: Part) -> float:
    """Of one part in one stage: its own, or that of all others."""
    rates = training.learning_rates.model_dump()
    own = rates.get(part.group)
    return training.learning_rate if own is None else float(own)


def projectors(params: Params, hidden_size: int) -> list[Part]:
    """The projectors of the modalities that are on, at the encoders' widths in params."""
    points, backbones = params.backbones.points.dec_channels[0], params.backbones
    of_modality = {
        "points": [("objects", points, 7), ("points", points, 3)],
        "image": [("views", backbones.image.hidden_size, 6)],
        "depth": [("depths", backbones.depth.hidden_size, 6)],
    }
    return [
        Part(f"projector of {name}", "projectors", _projector(width, num_places, hidden_size))
        for modality in params.model.modalities
        for name, width, num_places in of_modality[modality]
    ]


def _projector(width: int, num_places: int, hidden_size: int) -> int:
    rows = width + num_places * (2 * NUM_BANDS + 1) + hidden_size + 3  # three matrices, each with a bias
    return 2 * width + rows * hidden_size


def added_tokens(model: Model) -> int:
    """Identifiers, tags, both ends of a box, and the scene's placeholder."""
    return model.num_objects + len(TAGS) + 2 + 1


def language_sizes(model: Model, home: Path) -> Language:
    """From the language model's configuration where it is on this disk, else from the sizes in params."""
    path = model.language and find_file(model.language, model.revision, "config.json", home)
    if path:
        try:
            return _published(read_json(path))
        except KeyError as error:
            raise DataError(f"Expected the sizes of a language model in {path}, found no {error}.") from None
    head = model.hidden_size // model.num_attention_heads
    return Language(
        model.vocabulary + (added_tokens(model) if model.language is None else 0),
        model.hidden_size,
        model.intermediate_size,
        model.num_hidden_layers,
        head * model.num_attention_heads,
        head * model.num_key_value_heads,
        1 if model.language is None else 2,
    )


def _published(config: dict[str, Any]) -> Language:
    """The sizes in a `config.json`; that of a vision-language model may have them in a part of it."""
    text = config | config.get("text_config", {})
    head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    return Language(
        text["vocab_size"],
        text["hidden_size"],
        text["intermediate_size"],
        text["num_hidden_layers"],
        head * text["num_attention_heads"],
        head * text.get("num_key_value_heads", text["num_attention_heads"]),
        1 if config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)) else 2,
    )
