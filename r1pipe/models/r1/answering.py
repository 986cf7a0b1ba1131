"""Questions in, raw completions out: the trained model with its processor, for evaluation and serving alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from r1pipe.errors import DataError
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor, scene_reference
from r1pipe.models.r1.hearing import Grown, Rows, Whole
from r1pipe.models.r1.prefixes import Prefixes
from r1pipe.models.r1.prompts import Request, messages, with_scene
from r1pipe.models.r1.store import FeatureStore
from r1pipe.models.r1.weights import load
from r1pipe.params.run import Think
from r1pipe.progress import track
from r1pipe.views.choice import ViewChoice

__all__ = ["Answerer", "Kept", "Request"]

Kept = Callable[[int, Callable[[], list[str]]], list[str]]
"""Given a batch's number and what generates it: its completions, generated now or kept from an earlier run."""


def _nothing_kept(_: int, generate: Callable[[], list[str]]) -> list[str]:
    return generate()


class Answerer:
    """A model that answers questions about the scenes of a store."""

    def __init__(self, model: R1ForConditionalGeneration, processor: R1Processor, store: FeatureStore) -> None:
        self.model, self.processor, self.store = model.eval(), processor, store
        self._prefixes = Prefixes(self.model)

    @classmethod
    def load(cls, model: Path, *, features: Path, backbones: Path) -> Self:
        """The model of a folder, on CUDA where there is one.

        Raises:
            MissingError: if one of the folders does not hold what its stage writes.
        """
        store = FeatureStore.load(features, Clip.load(backbones / "clip"))
        processor = R1Processor.load(model, store)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(load(model).to(device), processor, store)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def scene_ids(self) -> list[str]:
        """The scenes that can be asked about."""
        return self.store.scene_ids

    def features(self, scene_id: str) -> SceneFeatures:
        """The encoders' view of a scene."""
        return self.store.features(scene_id)

    def add(self, features: SceneFeatures) -> None:
        """Make another scene askable."""
        self.store.add(features)

    def remove(self, scene_id: str) -> None:
        """Forget a scene that `add` brought."""
        self.store.remove(scene_id)

    def check(self, request: Request, *, max_tokens: int) -> None:
        """Refuse what cannot be put to the model.

        Raises:
            DataError: if a text holds a control token, whose meaning is not the sender's to use, or if question and
                history are longer than `max_tokens`.
        """
        tokenizer, texts = self.processor.tokenizer, [request.question, *request.history]
        tokens = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        control = next((token for token in tokens if any(token in text for text in texts)), None)
        if control is not None:
            raise DataError(f"Expected a question without control tokens, found {control!r} in it.")
        # No byte takes more than a token: most questions need no counting.
        if sum(len(text.encode()) for text in texts) > max_tokens:
            count = sum(map(len, tokenizer(texts)["input_ids"]))
            if count > max_tokens:
                raise DataError(f"Expected at most {max_tokens:,} tokens of question and history, found {count:,}.")

    @torch.inference_mode()
    def complete(
        self,
        requests: Sequence[Request],
        *,
        think: Think,
        max_new_tokens: int,
        batch_size: int,
        blind: bool = False,
        temperature: float = 0.0,
        kept: Kept = _nothing_kept,
    ) -> list[str]:
        """One completion a request, in order, to be read by `response.parse`.

        Args:
            requests: the questions.
            think: which tasks reason first.
            max_new_tokens: tokens a completion, at most.
            batch_size: questions a forward pass.
            blind: zero every scene pack: what the model says without looking.
            temperature: of the sampling, by torch's generator; 0 takes the likeliest token each time.
            kept: asked for each batch in turn; the same requests make the same batches.
        """
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        generate = partial(self._generate, think=think, blind=blind, max_new_tokens=max_new_tokens, **sampling)
        # Questions about one room share a batch: what they have in common is most of a prompt, and is read once.
        order = sorted(range(len(requests)), key=lambda i: (requests[i].task, requests[i].scene_id, i))
        completions = [""] * len(requests)
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        for number, batch in enumerate(track(batches, "answering")):
            texts = kept(number, partial(generate, [requests[i] for i in batch]))
            for i, text in zip(batch, texts, strict=True):
                completions[i] = text
        return completions

    def _generate(self, requests: Sequence[Request], *, think: Think, blind: bool, **options: Any) -> list[str]:
        inputs = self._read(requests, think, blind=blind)
        tokens = self.model.generate(**inputs, **options, **self._without_scene())
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return list(self.processor.tokenizer.batch_decode(new, skip_special_tokens=True))

    @torch.inference_mode()
    def answer(
        self,
        requests: Sequence[Request],
        *,
        think: Think,
        max_new_tokens: int,
        whole: Whole,
        grown: Mapping[int, Grown],
    ) -> None:
        """The likeliest completions of one batch, each told as soon as it has ended: token by token those of `complete`.

        For one thread: what the model has read of a room is kept.

        Args:
            requests: the questions.
            think: which tasks reason first.
            max_new_tokens: tokens a completion, at most.
            whole: told each request's number and completion, from the thread that calls.
            grown: by a request's number, who is told its text as it grows.
        """
        inputs = self._read(requests, think, blind=False)
        end = self.model.generation_config.eos_token_id
        rows = Rows(self.processor.tokenizer, end if isinstance(end, list) else [end], whole=whole, grown=grown)
        options = {"max_new_tokens": max_new_tokens, "do_sample": False, "streamer": rows}
        self.model.generate(**inputs, **options, **self._without_scene())

    @torch.inference_mode()
    def views(self, request: Request) -> list[ViewChoice]:
        """Every candidate view of the request's scene, with scores, in the candidates' order."""
        features = self.features(request.scene_id)
        selector = self.model.model.view_selector
        scores_V3 = torch.from_numpy(self.store.view_scores(request.scene_id, request.question)).to(self.model.device)
        cameras = torch.from_numpy(features.cameras).to(self.model.device)
        cameras_V6 = torch.cat([cameras[:, :3, 3], cameras[:, :3, 2]], dim=1)
        utility_V = selector.utility(scores_V3[None], cameras_V6[None])[0]
        kept = set(utility_V.topk(selector.num_kept).indices.tolist())
        rows = zip(scores_V3.tolist(), utility_V.tolist(), strict=True)
        return [
            ViewChoice(view, view in kept, text3d, image3d, clip, utility)
            for view, ((text3d, image3d, clip), utility) in enumerate(rows)
        ]

    def _read(self, requests: Sequence[Request], think: Think, *, blind: bool) -> dict[str, Any]:
        """What `generate` takes to go on behind what the model has read of the rooms."""
        inputs = self._inputs(requests, think, blind=blind)
        scenes = [None if blind else self.features(request.scene_id) for request in requests]
        return self._prefixes.read(scenes, inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values"])

    def _inputs(self, requests: Sequence[Request], think: Think, *, blind: bool) -> dict[str, Any]:
        """The model's inputs, on its device."""
        instruct = self.model.config.instruct
        conversations = [with_scene(messages(request, think, instruct=instruct)) for request in requests]
        texts = self.processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
        scenes = [scene_reference(request.scene_id, request.question) for request in requests]
        inputs = self.processor(images=scenes, text=texts, padding=True, return_tensors="pt").to(self.model.device)
        if blind:
            inputs["pixel_values"] = torch.zeros_like(inputs["pixel_values"])
        return dict(inputs)

    def _without_scene(self) -> dict[str, Any]:
        """The scene's placeholder is an input, never something to say."""
        return {"suppress_tokens": [self.model.config.image_token_id]}
