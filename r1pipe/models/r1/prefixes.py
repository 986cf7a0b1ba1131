"""What the model has read already: of every question about a room, the head with the scene in it.

A conversation begins with the scene, and no token sees what comes after it: the head's keys and values depend on the room
and the views that were chosen, not on the question's words. They are kept, and the next question is read from there on.

Shape suffixes: B batch, L prompt length, H head length, N rows of a scene pack, E their width, K kept views.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.modeling import R1ForConditionalGeneration
from r1pipe.models.r1.packs import unpack

MAX_KEPT = 256
"""Heads that are kept, one a room and choice of views; of `tiny` 110 kB each, at 7B some MB."""

_Key = tuple[str, tuple[int, ...]]


class _Head(NamedTuple):
    scene: SceneFeatures | None
    """What was read: a room that is taken in anew under the same id is read anew. None where the scene is zeroed."""

    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, `(heads, H, width)`."""


class Prefixes:
    """The heads that a model has read; for one thread."""

    def __init__(self, model: R1ForConditionalGeneration) -> None:
        self._model = model
        self._heads: OrderedDict[_Key, _Head] = OrderedDict()

    def read(
        self, scenes: Sequence[SceneFeatures | None], ids_BL: Tensor, mask_BL: Tensor, packs_BNE: Tensor
    ) -> dict[str, Any]:
        """What `generate` takes to go on behind the heads; those not kept are read now.

        Args:
            scenes: each row's; None where its pack is zeroed.
            ids_BL: whole prompts, padded on the left.
            mask_BL: their attention mask.
            packs_BNE: each row's scene pack.
        """
        start_B1 = mask_BL.argmax(dim=1, keepdim=True)
        is_scene_L = ids_BL[0] == self._model.config.image_token_id
        length = int(is_scene_L.nonzero().max()) + 1 - int(start_B1[0])
        columns_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        head_BH = ids_BL.gather(1, start_B1 + columns_L[:length])
        heads = self._of(scenes, head_BH, packs_BNE)
        # The padding moves behind the head: kept keys are rotated to the positions from 0 on.
        mask = ((columns_L < length) | (columns_L >= start_B1 + length)).to(mask_BL.dtype)
        return {
            "input_ids": torch.cat([head_BH, ids_BL[:, length:]], dim=1),
            "attention_mask": mask,
            "position_ids": mask.cumsum(dim=1) - 1,
            "past_key_values": self._cache(heads),
        }

    def _of(self, scenes: Sequence[SceneFeatures | None], head_BH: Tensor, packs_BNE: Tensor) -> list[_Head]:
        """Each row's head; one that several rows share is read once."""
        pack = unpack(packs_BNE.float(), self._model.config)
        best_BK = self._model.model.view_selector.best(pack.view_scores, pack.cameras).tolist()
        names = ["" if scene is None else scene.scene_id for scene in scenes]
        keys = [(name, tuple(best)) for name, best in zip(names, best_BK, strict=True)]
        heads = {key: self._heads[key] for key in keys if key in self._heads}
        new = {key: row for row, key in enumerate(keys) if key not in heads or heads[key].scene is not scenes[row]}
        if new:
            keys_new = sorted(new)  # one room's are neighbours: what they share is read once
            rows = [new[key] for key in keys_new]
            heads_BH, cache = head_BH[rows], DynamicCache(config=self._model.config.text_config)
            self._model.model(
                heads_BH, torch.ones_like(heads_BH), packs_BNE[rows], past_key_values=cache, use_cache=True
            )
            for number, key in enumerate(keys_new):
                # Cloned: a slice would keep all of the batch.
                layers = [(keys_B[number].clone(), values_B[number].clone()) for keys_B, values_B, _ in cache]
                heads[key] = _Head(scenes[new[key]], layers)
        self._keep(heads)
        return [heads[key] for key in keys]

    def _keep(self, heads: dict[_Key, _Head]) -> None:
        """A server is asked for months: what it keeps is bounded."""
        for key, head in heads.items():
            self._heads[key] = head
            self._heads.move_to_end(key)
        while len(self._heads) > MAX_KEPT:
            self._heads.popitem(last=False)

    def _cache(self, heads: Sequence[_Head]) -> DynamicCache:
        cache = DynamicCache(config=self._model.config.text_config)
        for number in range(len(heads[0].layers)):
            keys, values = zip(*(head.layers[number] for head in heads), strict=True)
            cache.update(torch.stack(keys), torch.stack(values), number)
        return cache
