"""From a scene and a conversation to the model's inputs: one processor for training, evaluation and serving.

A scene is referred to as `<scene id>|<question>`, because how useful a view is depends on the question.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import torch
from transformers import AutoTokenizer, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_base import ImageProcessingMixin

from r1pipe.errors import MissingError
from r1pipe.models.features import Float32, SceneFeatures
from r1pipe.models.r1.configuration import R1Config
from r1pipe.models.r1.packs import pack

SCENE_TOKEN = "<scene>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}" + SCENE_TOKEN + "{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, with a placeholder where the scene goes."""

_FLATTEN = (
    "{%- set flat = namespace(messages=[]) -%}"
    "{%- for m in messages -%}"
    "{%- set text = namespace(value='') -%}"
    "{%- if m['content'] is string -%}{%- set text.value = m['content'] -%}"
    "{%- else -%}{%- for c in m['content'] -%}"
    "{%- set text.value = text.value ~ ('" + SCENE_TOKEN + "' if c['type'] == 'image' else c['text']) -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- set flat.messages = flat.messages + [{'role': m['role'], 'content': text.value}] -%}"
    "{%- endfor -%}"
    "{%- set messages = flat.messages -%}"
)


def with_placeholder(template: str) -> str:
    """A language model's own chat template, given turns of plain text with the scene's placeholder in them."""
    return _FLATTEN + template


class SceneStore(Protocol):
    """Where a reader gets scenes and the scores of their views from."""

    def features(self, scene_id: str) -> SceneFeatures:
        """The encoders' view of a scene."""

    def view_scores(self, scene_id: str, question: str) -> Float32:
        """`(V, 3)`: text3d, image3d, clip of each candidate view."""


def scene_reference(scene_id: str, question: str) -> str:
    """What stands in a dataset's `images` column."""
    return f"{scene_id}|{question}"


class SceneReader(ImageProcessingMixin):
    """Scene references to `pixel_values` `(scenes, N, E)`: what an image processor is to an image."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, config: R1Config, store: SceneStore, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config, self.store = config, store

    def fetch_images(self, references: Any) -> Any:
        """References are not files: the chat template's loader passes them through."""
        return references

    def __call__(self, images: Iterable[str | Sequence[str] | None], **kwargs: Any) -> BatchFeature:
        """Read the scenes referred to, in order; a group of references is read one by one."""
        references = [r for group in images for r in ([group] if isinstance(group, str) else group or ())]
        packs = np.stack([self.read(reference) for reference in references])
        return BatchFeature({"pixel_values": torch.from_numpy(packs)})

    def read(self, reference: str) -> Float32:
        """The `(N, E)` pack of one reference."""
        scene_id, _, question = reference.partition("|")
        return pack(self.store.features(scene_id), self.store.view_scores(scene_id, question), self.config)

    def to_dict(self) -> dict[str, Any]:
        """Nothing of its own is saved: the model's configuration fixes the pack, the store is the caller's."""
        return {"image_processor_type": type(self).__name__}


class R1Processor(ProcessorMixin):
    """Tokenizer and scene reader: text with one placeholder a scene becomes one with as many as the scene has tokens."""

    attributes: ClassVar[list[str]] = ["image_processor", "tokenizer"]
    image_processor_class, tokenizer_class = "SceneReader", "AutoTokenizer"

    def __init__(self, image_processor: SceneReader, tokenizer: PreTrainedTokenizerBase, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, chat_template=tokenizer.chat_template)

    @classmethod
    def load(cls, folder: Path, store: SceneStore) -> Self:
        """The processor of a saved model, reading scenes from `store`.

        Raises:
            MissingError: if the folder holds no model.
        """
        if not (folder / "config.json").is_file():
            raise MissingError(f"Expected a model in {folder}, found no config.json there.")
        config = R1Config.from_pretrained(folder)
        return cls(SceneReader(config, store), AutoTokenizer.from_pretrained(folder))

    def __call__(
        self,
        images: Iterable[str | Sequence[str] | None] | None = None,
        text: str | Sequence[str] = (),
        *,
        padding: bool | str = False,
        padding_side: Literal["left", "right"] | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` `(B, L)`, and `pixel_values` `(B, N, E)` where there are scenes.

        Padding is on the left unless `padding_side` says otherwise: TRL pads completions on the right, so that each
        follows its prompt without a gap.
        """
        texts = [text] if isinstance(text, str) else list(text)
        placeholders = SCENE_TOKEN * self.image_processor.config.num_scene_tokens
        texts = [t.replace(SCENE_TOKEN, placeholders) for t in texts]
        inputs = dict(
            self.tokenizer(
                texts,
                padding=padding,
                padding_side=padding_side,
                return_tensors=return_tensors,
                return_token_type_ids=False,
            )
        )
        scenes = dict(self.image_processor(images)) if images is not None else {}
        return BatchFeature(inputs | scenes)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Write the tokenizer with its chat template; the rest is in the model's configuration."""
        self.tokenizer.chat_template = self.chat_template
        saved: tuple[str, ...] = self.tokenizer.save_pretrained(save_directory)
        return list(saved)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The token ids that `R1Config` needs: the scene's placeholder and the first identifier."""
    ids = {"image_token_id": SCENE_TOKEN, "first_object_id": "<obj_000>"}
    return {name: int(tokenizer.convert_tokens_to_ids(token)) for name, token in ids.items()}
