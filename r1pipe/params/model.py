"""The section `model`: the shape of 3D-R1."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, Positive, Section

Modality = Literal["image", "depth", "points"]
"""SigLIP-2 features of views, Depth-Anything features of views, and what comes of the cloud: objects and regions."""

Identifiers = Literal["added", "following"]
"""`added` to the object's token, or a token of their own `following` it."""

FrozenDtype = Literal["float32", "bfloat16"]


class Model(Section):
    """The 3D-R1 model's shape; shared by `sft` and everything after it."""

    language: str | None
    """Hub id or local path of the language model; null builds one from the sizes below."""

    revision: str | None
    frozen_dtype: FrozenDtype
    """Of a language model that only adapters train; what is trained is float32 always."""

    vocabulary: Count
    """Size of the tokenizer trained where `language` is null."""

    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count
    initializer_range: Positive
    """About 1/sqrt(hidden_size): at the usual 0.02 attention in a narrow model never leaves the uniform plateau."""

    num_objects: Annotated[int, Field(gt=0, le=1000)]
    identifiers: Identifiers
    """Where an object's identifier stands. A model from scratch reads it fastest in the object's own token; a pretrained one
    has learnt to look what followed a word, so it takes the name behind the object."""

    num_views: Count
    """Views that the selector keeps."""

    view_strategy: Literal["learnt", "all", "horizontal", "bottom", "random", "fixed"]
    view_weights: tuple[float, float, float]
    """w_t, w_c and w_clip of the strategy `fixed`; w_c + w_clip = 1."""

    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)]
    """What of a scene the language model sees beside the question."""

    @model_validator(mode="after")
    def _view_weights_sum_up(self) -> Self:
        _, image3d, clip = self.view_weights
        if abs(image3d + clip - 1) > 1e-6:
            raise ValueError(f"view_weights need w_c + w_clip = 1, found {image3d:g} + {clip:g}")
        return self
