"""Train a small CLIP on views and crops with their texts.

The contrastive loss of CLIP (Radford et al. 2021), with every text that is true of an image as its positive (UniCL,
Yang et al. 2022), and the uniformity term of Wang and Isola (2020) among short texts: the semantic reward compares
answers of one or two words, which image and text alone leave close together.
Shape suffixes: B batch, C the space's width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from r1pipe.models.encoders.clip import Clip
from r1pipe.params.encoders import ClipBackbone
from r1pipe.training.encoders.loop import Log, fit, seeded
from r1pipe.training.encoders.pairs import Mixture, Shown, accuracy

VOCABULARY = 49408
"""Tokens of CLIP's own tokenizer."""

MAX_SCALE = 4.6052
"""Logarithm of CLIP's largest logit scale, 100."""

UNIFORMITY_WEIGHT = 1.0

VIEW_SHARE = 0.15
"""Share of whole views in a batch; most of a view's texts are true of most views, so crops teach more."""


def train_clip(images: Sequence[Shown], texts: Sequence[str], params: ClipBackbone, *, seed: int, log: Log) -> Clip:
    """A CLIP of the sizes in `params`, trained on images with their texts and on short `texts` to be kept apart."""
    mixture, weights = Mixture(images, VIEW_SHARE), _by_length(texts)
    with seeded(seed) as rng:
        clip = Clip.new(_config(params, images[0].image.shape[0]))

        def loss() -> torch.Tensor:
            batch = mixture.draw(params.batch_size, rng)
            said = [image.texts[rng.integers(len(image.texts))] for image in batch]
            apart = _draw(texts, weights, min(params.batch_size, len(texts)), rng)
            text_BC, apart_BC = clip.text_features(said + apart).split([len(said), len(apart)])
            image_BC = clip.model.encode_image(clip.inputs(np.stack([i.image for i in batch])), normalize=True)
            logits_BB = clip.model.logit_scale.clamp(max=MAX_SCALE).exp() * image_BC @ text_BC.T
            return _contrast(logits_BB, _truth(batch, said)) + UNIFORMITY_WEIGHT * _uniformity(apart_BC)

        fit([clip.model], loss, steps=params.steps, learning_rate=params.learning_rate, log=log, description="clip")
    return clip


def evaluate_clip(clip: Clip, images: Sequence[Shown], texts: Sequence[str]) -> dict[str, float]:
    """How often a crop's nearest text is its own, beside the share of the commonest one; and how far texts are apart.

    `retrieval_r1` asks for the phrase ("red chair"), `attribute_r1` for the attribute alone ("red").
    `other_text_cosine_p95`: 95th percentile of the cosine of two different short texts; the same text has 1.
    """
    phrase_r1, commonest_phrase = _zero_shot(clip, [(image, image.phrase) for image in images if image.phrase])
    attribute_r1, commonest = _zero_shot(clip, [(image, image.attribute) for image in images if image.attribute])
    rows = clip.encode_text(texts)
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), k=1)]
    return {
        "retrieval_r1": phrase_r1,
        "retrieval_r1_commonest": commonest_phrase,
        "attribute_r1": attribute_r1,
        "attribute_r1_commonest": commonest,
        "other_text_cosine_mean": float(cosines.mean()) if len(cosines) else 0.0,
        "other_text_cosine_p95": float(np.quantile(cosines, 0.95)) if len(cosines) else 0.0,
    }


def _zero_shot(clip: Clip, named: Sequence[tuple[Shown, str]]) -> tuple[float, float]:
    """How often the nearest of all names is an image's own, and the share of the commonest name."""
    if not named:
        return 0.0, 0.0
    wanted = [name for _, name in named]
    names = sorted(set(wanted))
    near = clip.encode_images(np.stack([image.image for image, _ in named])) @ clip.encode_text(names).T
    return accuracy([names[i] for i in near.argmax(axis=1)], wanted)


def _config(params: ClipBackbone, image_size: int) -> dict[str, object]:
    """open_clip's `model_cfg`; patches are averaged, so each of them learns to live in the shared space."""
    vision = {
        "image_size": image_size,
        "patch_size": params.patch_size,
        "layers": params.image_layers,
        "width": params.image_width,
        "head_width": 32,
        "pool_type": "avg",
    }
    text = {
        "context_length": params.context_length,
        "vocab_size": VOCABULARY,
        "layers": params.text_layers,
        "width": params.text_width,
        "heads": max(1, params.text_width // 32),
    }
    return {"embed_dim": params.embed_dim, "vision_cfg": vision, "text_cfg": text}


def _by_length(texts: Sequence[str]) -> NDArray[np.float64]:
    """Probabilities of the texts: one word as often as two or three, though there are fewer, as answers mostly have one."""
    lengths = np.array([len(text.split()) for text in texts])
    weights = 1 / np.array([(lengths == length).sum() for length in lengths])
    return np.asarray(weights / weights.sum())


def _draw(texts: Sequence[str], weights: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.choice(len(texts), size=count, replace=False, p=weights)]


def _truth(batch: Sequence[Shown], texts: Sequence[str]) -> torch.Tensor:
    """`(B, B)` 0 or 1: whether a text is true of an image."""
    sets = [set(image.texts) for image in batch]
    return torch.tensor([[float(text in true) for text in texts] for true in sets])


def _contrast(logits_BB: torch.Tensor, truth_BB: torch.Tensor) -> torch.Tensor:
    truth_BB = truth_BB.to(logits_BB.device)
    to_text = cross_entropy(logits_BB, truth_BB / truth_BB.sum(dim=1, keepdim=True))
    to_image = cross_entropy(logits_BB.T, truth_BB.T / truth_BB.T.sum(dim=1, keepdim=True))
    return (to_text + to_image) / 2


def _uniformity(features_BC: torch.Tensor) -> torch.Tensor:
    """Logarithm of the mean Gaussian potential of the pairs, t = 2; low where unit vectors fill the sphere."""
    if len(features_BC) < 2:
        return features_BC.sum() * 0
    return torch.pdist(features_BC).square().mul(-2).exp().mean().log()
