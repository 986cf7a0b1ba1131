"""A language model that reads scenes.

Shape suffixes: B batch, L text length, N rows of a scene pack, E their width, S scene tokens, D language width.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from r1pipe.errors import ModelError
from r1pipe.models.r1.configuration import R1Config
from r1pipe.models.r1.packs import CAMERA_HEAD, Pack, unpack
from r1pipe.models.r1.rows import Head, TokenRows
from r1pipe.models.r1.selector import TEXT_WEIGHT, ViewSelector
from r1pipe.models.r1.sharing import Fold, fold


class Projector(nn.Module):
    """One modality's features, with where they are, to the language model's width."""

    def __init__(self, width: int, num_places: int, config: R1Config) -> None:
        """`num_places` numbers say where a token is: metres, or an axis's components."""
        super().__init__()
        hidden = config.text_config.hidden_size
        self.num_bands = config.num_bands
        self.norm = nn.LayerNorm(width)
        self.features = nn.Linear(width, hidden)
        self.places = nn.Linear(num_places * (2 * config.num_bands + 1), hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """`(..., width)` and `(..., num_places)` to `(..., D)`."""
        hidden = self.features(self.norm(features)) + self.places(fourier(places, self.num_bands))
        return torch.as_tensor(self.out(nn.functional.gelu(hidden)))


def fourier(values: Tensor, num_bands: int) -> Tensor:
    """`(..., C)` numbers with the sines and cosines of `num_bands` octaves: `(..., C * (2 num_bands + 1))`.

    The slowest wave is 16 m long, more than a room; the fastest of six bands 0.5 m.
    """
    octaves = 2.0 ** torch.arange(num_bands, device=values.device, dtype=values.dtype)
    angles = (values.unsqueeze(-1) * octaves * (2 * torch.pi / 16)).flatten(-2)
    return torch.cat([values, angles.sin(), angles.cos()], dim=-1)


def place(embeds_BLD: Tensor, scene_BSD: Tensor, where_BL: Tensor) -> Tensor:
    """Put the scene's tokens at the placeholders, in order.

    Raises:
        ModelError: if a row has not as many placeholders as scene tokens; scattering anyway would silently shift
            every scene after it.
    """
    counts = where_BL.sum(dim=1)
    if scene_BSD.shape[0] != where_BL.shape[0] or bool((counts != scene_BSD.shape[1]).any()):
        found = f"{counts.tolist()} placeholders in {where_BL.shape[0]} rows"
        raise ModelError(
            f"Expected {scene_BSD.shape[1]} placeholders in each of {scene_BSD.shape[0]} rows, found {found}."
        )
    return embeds_BLD.masked_scatter(where_BL.unsqueeze(-1), scene_BSD.to(embeds_BLD.dtype))


class R1PreTrainedModel(PreTrainedModel):
    """What transformers and TRL need to know of the class."""

    config: R1Config
    config_class = R1Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["Qwen2DecoderLayer", "Projector"]
    # What is trained beside adapters is float32 whatever the frozen language model is: in bfloat16 a step of RL rounds
    # away, and positions are off by centimetres.
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = [
        "object_projector", "point_projector", "view_projector", "depth_projector", "view_selector", "input_rows", "output_rows",
    ]  # fmt: skip

    def _init_weights(self, module: nn.Module) -> None:
        """The language model's own scale for the projectors; the selector starts at the paper's weights."""
        std = self.config.text_config.initializer_range
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ViewSelector):
            nn.init.constant_(module.text_weight, TEXT_WEIGHT)
            nn.init.zeros_(module.clip_logit)


class R1Model(R1PreTrainedModel):
    """Projectors, view selector and language model."""

    def __init__(self, config: R1Config) -> None:
        super().__init__(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.object_projector = Projector(config.object_width, 7, config)
        self.point_projector = Projector(config.point_width, 3, config)
        self.view_projector = Projector(config.view_width, CAMERA_HEAD, config)
        self.depth_projector = Projector(config.depth_width, CAMERA_HEAD, config)
        self.view_selector = ViewSelector(config)
        width = config.text_config.hidden_size
        self.input_rows = TokenRows(config.trained_tokens, width) if config.trained_tokens else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace them."""
        self.language_model.set_input_embeddings(value)

    def embed_tokens(self, ids_BL: Tensor) -> Tensor:
        """`(B, L, D)`: the language model's embeddings, with the trained rows of added tokens."""
        embeds_BLD = self.get_input_embeddings()(ids_BL)
        return torch.as_tensor(embeds_BLD if self.input_rows is None else self.input_rows(embeds_BLD, ids_BL))

    def embed_objects(self, pack: Pack) -> Tensor:
        """Each object's projection with the embedding of its identifier: their sum `(B, O, D)`, or by turns `(B, 2 O, D)`.

        0 where there is no object.
        """
        first = self.config.first_object_id
        names = torch.arange(first, first + self.config.num_objects, device=pack.boxes.device)
        objects_BOD, is_object_BO1 = self.project_objects(pack), pack.is_object.unsqueeze(-1)
        names_BOD = self.embed_tokens(names).expand_as(objects_BOD)
        if self.config.identifiers == "added":
            return torch.as_tensor((objects_BOD + names_BOD) * is_object_BO1)
        return torch.stack([objects_BOD * is_object_BO1, names_BOD * is_object_BO1], dim=2).flatten(1, 2)

    def project_objects(self, pack: Pack) -> Tensor:
        """`(B, O, D)`: the objects without their names; what alignment regresses."""
        return torch.as_tensor(self.object_projector(pack.objects, torch.cat([pack.boxes, pack.object_scores], dim=-1)))

    def embed_scene(self, packs_BNE: Tensor) -> Tensor:
        """`(B, S, D)`: objects and points, the chosen views, their depths, as far as the modalities have them.

        In float32 also under autocast: what says where is exact to the millimetre.
        """
        with torch.autocast(packs_BNE.device.type, enabled=False):
            return self._embed_pack(unpack(packs_BNE.float(), self.config))

    def _embed_pack(self, pack: Pack) -> Tensor:
        choice_BKV = self.view_selector(pack.view_scores, pack.cameras)
        tokens = []
        if "points" in self.config.modalities:
            tokens += [self.embed_objects(pack), self.point_projector(pack.points, pack.point_xyz)]
        if "image" in self.config.modalities:
            tokens.append(choice_BKV @ self.view_projector(pack.views, pack.cameras))
        if "depth" in self.config.modalities:
            tokens.append(choice_BKV @ self.depth_projector(pack.depths, pack.cameras))
        return torch.cat(tokens, dim=1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Embed the text, place the scene in it, and run the language model.

        Args:
            input_ids: `(B, L)`.
            attention_mask: `(B, L)`.
            pixel_values: `(B, N, E)` scene packs; None continues a cached generation.
            kwargs: passed to the language model.
        """
        embeds_BLD = self.embed_tokens(input_ids)
        if pixel_values is not None:
            embeds_BLD = place(embeds_BLD, self.embed_scene(pixel_values), input_ids == self.config.image_token_id)
        folded = self._fold(embeds_BLD, attention_mask, kwargs)
        if folded is None:
            return self.language_model(inputs_embeds=embeds_BLD, attention_mask=attention_mask, **kwargs)
        cache = kwargs.pop("past_key_values", None)
        read = None if cache is None else DynamicCache(config=self.config.text_config)
        kwargs |= {"attention_mask": folded.sees, "position_ids": folded.positions, "past_key_values": read}
        out = self.language_model(inputs_embeds=folded.pack(embeds_BLD), **kwargs)
        if read is not None:
            folded.unpack_cache(read, cache)
        return BaseModelOutputWithPast(folded.unpack(out.last_hidden_state), past_key_values=cache)

    def _fold(self, embeds_BLD: Tensor, mask_BL: Tensor | None, given: dict[str, Any]) -> Fold | None:
        """How rows that begin alike are read once; None where something was read before, or no mask can say so."""
        cache = given.get("past_key_values")
        goes_on = cache is not None and cache.get_seq_length() > 0
        if goes_on or mask_BL is None or self.config.text_config._attn_implementation != "sdpa":
            return None
        return fold(embeds_BLD, mask_BL, given.get("position_ids"))


class R1ForConditionalGeneration(R1PreTrainedModel, GenerationMixin):
    """3D-R1 with its language-model head."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: R1Config) -> None:
        super().__init__(config)
        self.model = R1Model(config)
        width, untied = config.text_config.hidden_size, not config.tie_word_embeddings
        self.lm_head = nn.Linear(width, config.text_config.vocab_size, bias=False)
        self.output_rows = TokenRows(config.trained_tokens, width) if config.trained_tokens and untied else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | Head:
        """The language-model head; with trained rows of added tokens, as TRL multiplies with it."""
        rows = self._head_rows()
        return self.lm_head if rows is None else Head(rows.table(self.lm_head.weight))

    def _head_rows(self) -> TokenRows | None:
        """The added tokens' rows in the head: those of the input where both are one matrix."""
        return self.model.input_rows if self.config.tie_word_embeddings else self.output_rows

    # transformers refuses `attention_mask` unless it is named, and TRL finds the catch-all by the name `kwargs`.
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token logits `(B, L, vocabulary)`, and the loss where `labels` are given."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, **kwargs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden = out.last_hidden_state[:, kept]
        logits, rows = self.lm_head(hidden), self._head_rows()
        logits = logits if rows is None else rows.logits(logits, hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=out.past_key_values)

    # `generate` refuses `past_key_values` and `position_ids` unless they are named here.
    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        is_first_iteration: bool = False,
        past_key_values: Cache | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The scene goes in with the prompt; later steps run from the cache, where it already is."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            is_first_iteration=is_first_iteration,
            past_key_values=past_key_values,
            position_ids=position_ids,
            **kwargs,
        )
        is_cached = kwargs.get("use_cache", True) and not is_first_iteration
        inputs["pixel_values"] = None if is_cached else pixel_values
        return inputs

    def load_language_model(self, donor: PreTrainedModel) -> None:
        """Take a pretrained language model's weights, its vocabulary as it is here, in the configuration's dtype.

        A vision-language model gives those of its language part.

        Raises:
            ModelError: if its widths are not those of this configuration.
        """
        donor.resize_token_embeddings(self.config.text_config.vocab_size, mean_resizing=False)
        wanted, found = self.model.language_model.state_dict(), donor.get_decoder().state_dict()
        wrong = sorted(
            k
            for k in wanted.keys() | found.keys()
            if k not in wanted or k not in found or wanted[k].shape != found[k].shape
        )
        if wrong:
            raise ModelError(
                f"Expected the language model {donor.name_or_path} to fit its own configuration, found {len(wrong)} other weights, first {wrong[0]}."
            )
        self.model.language_model.load_state_dict(found)
        self.lm_head.load_state_dict(donor.get_output_embeddings().state_dict())

    def freeze_language_model(self) -> None:
        """Put the language model and its head into the dtype that frozen weights have; all else stays float32."""
        frozen = getattr(torch, self.config.frozen_dtype)
        self.model.language_model.to(frozen)
        self.lm_head.to(frozen)
        self.tie_weights()


AutoConfig.register(R1Config.model_type, R1Config)
AutoModelForCausalLM.register(R1Config, R1ForConditionalGeneration)
