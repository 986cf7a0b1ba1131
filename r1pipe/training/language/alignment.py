"""Alignment: the object projector learns to speak the language model's words before SFT.

LLaVA's first stage, in a second: each training object's token is regressed onto the sum of the embeddings of its
colour and class. Without it a tiny model from scratch does not learn to look.

Shape suffixes: S scenes, O object slots, N, E a pack, D language width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1ForConditionalGeneration
from r1pipe.models.r1.packs import pack, unpack
from r1pipe.progress import track

LEARNING_RATE = 3e-3
BATCH_SIZE = 64


def align(
    model: R1ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    scenes: Sequence[SceneFeatures],
    words: Mapping[str, Mapping[int, str]],
    *,
    steps: int,
    seed: int,
) -> float:
    """Fit the object projector; returns the last step's loss as a share of the targets' variance.

    Args:
        model: changed in place; only its object projector learns.
        tokenizer: the model's.
        scenes: the training scenes.
        words: what each detection is, e.g. "red chair", by scene and detection.
        steps: optimizer steps.
        seed: of the batches.
    """
    packs_SNE = torch.from_numpy(
        np.stack([pack(s, np.zeros((len(s.cameras), 3), np.float32), model.config) for s in scenes])
    )
    targets_SOD, known_SO = _targets(model, tokenizer, [words[s.scene_id] for s in scenes])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.model.object_projector.parameters(), lr=LEARNING_RATE)
    variance, loss = targets_SOD[known_SO].var(), torch.zeros(())
    for _ in track(range(steps), "aligning objects with words"):
        batch = torch.randint(len(scenes), (min(BATCH_SIZE, len(scenes)),), generator=generator)
        tokens_SOD = model.model.project_objects(unpack(packs_SNE[batch], model.config))
        loss = (tokens_SOD - targets_SOD[batch])[known_SO[batch]].square().mean() / variance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss)


@torch.no_grad()
def scale_start(model: R1ForConditionalGeneration, scenes: Sequence[SceneFeatures]) -> None:
    """Give the scene's tokens the size of words: a fresh projector's are many times as large as a pretrained embedding.

    Args:
        model: changed in place.
        scenes: some of the training scenes.
    """
    inner, config = model.model, model.config
    words = float(inner.get_input_embeddings().weight.float().norm(dim=1).mean())
    packs = [pack(s, np.zeros((len(s.cameras), 3), np.float32), config) for s in scenes[:BATCH_SIZE]]
    parts = unpack(torch.from_numpy(np.stack(packs)), config)
    tokens = {
        inner.object_projector: inner.project_objects(parts)[parts.is_object.bool()],
        inner.point_projector: inner.point_projector(parts.points, parts.point_xyz),
        inner.view_projector: inner.view_projector(parts.views, parts.cameras),
        inner.depth_projector: inner.depth_projector(parts.depths, parts.cameras),
    }
    for projector, made in tokens.items():
        projector.out.weight.mul_(words / float(made.norm(dim=-1).mean()))


def _targets(
    model: R1ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, words: Sequence[Mapping[int, str]]
) -> tuple[Tensor, Tensor]:
    """`(S, O, D)` sums of word embeddings, and `(S, O)` where an object is known."""
    embeddings = next(model.get_input_embeddings().parameters()).detach()
    targets = torch.zeros(len(words), model.config.num_objects, embeddings.shape[1])
    known = torch.zeros(targets.shape[:2], dtype=torch.bool)
    for row, names in enumerate(words):
        for slot, text in names.items():
            if slot < model.config.num_objects:
                # A published vocabulary has words with the space before them.
                words_of = tokenizer(f"{' ' * model.config.instruct}{text}", add_special_tokens=False)["input_ids"]
                targets[row, slot] = embeddings[words_of].float().sum(dim=0)
                known[row, slot] = True
    return targets, known
