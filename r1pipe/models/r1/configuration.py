"""The shape of 3D-R1: its language model, and the fixed counts and widths of a scene pack."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PretrainedConfig, Qwen2Config

from r1pipe.errors import ModelError
from r1pipe.params.model import FrozenDtype, Identifiers, Modality

ViewStrategy = Literal["learnt", "all", "horizontal", "bottom", "random", "fixed"]


class R1Config(PretrainedConfig):
    """Counts are tokens of a scene; widths are the encoders' own.

    Args:
        text_config: the language model's configuration, as an object or as its dictionary.
        num_objects: detected objects a scene, at most; each has an identifier token `<obj_000>`.
        identifiers: whether `<obj_000>` is `added` to the object's token, or a token `following` it.
        first_object_id: token id of `<obj_000>`; the others follow it.
        object_width: width of an object's features.
        num_points: regions that a cloud is pooled to.
        point_width: width of a region's features.
        num_candidates: candidate views a scene.
        num_views: views that the selector keeps.
        view_width: width of a view's image features.
        depth_width: width of a view's depth features.
        modalities: what of a scene becomes tokens, of "image", "depth" and "points".
        view_strategy: how views are chosen; `learnt` is the paper's.
        view_weights: w_t, w_c and w_clip of the strategy `fixed`.
        view_temperature: softness of the straight-through gradient of the choice.
        view_weight_pull: strength of the L2 term that pulls w_t to 0.3.
        num_bands: octaves of the Fourier features of a position.
        image_token_id: the placeholder of a scene token; TRL reads it under this name.
        trained_tokens: ids of the added tokens that have trained rows of their own beside a frozen language model.
        frozen_dtype: of the language model where adapters are trained on it, as torch calls it; all else is float32.
        instruct: whether the language model is told its task in words, through the chat template that it brought.
    """

    model_type = "r1pipe_r1"
    sub_configs: ClassVar[dict[str, type]] = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        *,
        num_objects: int = 24,
        identifiers: Identifiers = "added",
        first_object_id: int = 0,
        object_width: int = 64,
        num_points: int = 8,
        point_width: int = 64,
        num_candidates: int = 9,
        num_views: int = 3,
        view_width: int = 64,
        depth_width: int = 48,
        modalities: Sequence[Modality] = ("image", "depth", "points"),
        view_strategy: ViewStrategy = "learnt",
        view_weights: Sequence[float] = (0.3, 0.5, 0.5),
        view_temperature: float = 0.1,
        view_weight_pull: float = 0.1,
        num_bands: int = 6,
        image_token_id: int = 0,
        trained_tokens: Sequence[int] = (),
        frozen_dtype: FrozenDtype = "float32",
        instruct: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        if num_views > num_candidates:
            raise ModelError(f"Expected num_views of at most the {num_candidates} candidates, found {num_views}.")
        self.text_config = text_config or Qwen2Config()
        self.num_objects, self.first_object_id, self.object_width = num_objects, first_object_id, object_width
        self.identifiers = identifiers
        self.num_points, self.point_width = num_points, point_width
        self.num_candidates, self.num_views = num_candidates, num_views
        self.view_width, self.depth_width = view_width, depth_width
        self.modalities = list(modalities)
        self.view_strategy, self.view_temperature = view_strategy, view_temperature
        self.view_weights = list(view_weights)
        self.view_weight_pull, self.num_bands, self.image_token_id = view_weight_pull, num_bands, image_token_id
        self.trained_tokens, self.frozen_dtype, self.instruct = sorted(trained_tokens), frozen_dtype, instruct
        super().__init__(**kwargs)

    @property
    def num_kept_views(self) -> int:
        """Views whose tokens the language model sees."""
        return self.num_candidates if self.view_strategy == "all" else self.num_views

    @property
    def num_scene_tokens(self) -> int:
        """Placeholders that a scene fills: objects and points, kept views, their depths, as far as modalities has them."""
        counts = {
            "points": self.num_objects * (2 if self.identifiers == "following" else 1) + self.num_points,
            "image": self.num_kept_views,
            "depth": self.num_kept_views,
        }
        return sum(counts[modality] for modality in self.modalities)
