"""Train a small SigLIP vision tower against the text embeddings of a frozen CLIP, with SigLIP's sigmoid loss.

Zhai et al. 2023, eq. 1; every pair of an image and a text is a yes or no, so a whole view may have many true texts.
Shape suffixes: B images, P texts, D the tower's width, C the text space's width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import logsigmoid, normalize

from r1pipe.models.encoders.clip import Clip
from r1pipe.models.encoders.image import ImageEncoder
from r1pipe.params.encoders import ImageBackbone
from r1pipe.training.encoders.loop import Log, fit, seeded
from r1pipe.training.encoders.pairs import SHORT_WORDS, Mixture, Shown, accuracy

INITIAL_SCALE, INITIAL_BIAS = 2.3026, -3.0
"""Logarithm of the temperature, SigLIP's; and the bias: about the logit of a true pair's share among our few texts
(SigLIP's -10 is for batches of thousands, and costs a short training most of its steps)."""

VIEW_SHARE = 0.1
"""Share of whole views in a batch: they are what the tower will see, crops say what is what in them."""

RIDGE = 1.0
"""Weight of the probe's penalty, features standardised."""


def train_image(images: Sequence[Shown], clip: Clip, params: ImageBackbone, *, seed: int, log: Log) -> ImageEncoder:
    """A vision tower of the sizes in `params` whose pooled hidden states tell what a view shows."""
    texts = sorted({text for image in images for text in _short(image)})
    embedded = dict(zip(texts, torch.from_numpy(clip.encode_text(texts)), strict=True))
    mixture = Mixture(images, VIEW_SHARE)
    with seeded(seed) as rng:
        encoder = _new(images, params)
        head = _Head(params.hidden_size, clip.dim).to(encoder.model.device)

        def loss() -> torch.Tensor:
            batch = mixture.draw(params.batch_size, rng)
            names = [_short(image) for image in batch]
            candidates = sorted({text for row in names for text in row})
            true_BP = torch.tensor([[text in row for text in candidates] for row in names])
            text_PC = torch.stack([embedded[text] for text in candidates])
            pooled_BD = encoder.pool(encoder.inputs(np.stack([image.image for image in batch])))
            logits_BP = head(pooled_BD, text_PC.to(pooled_BD.device))
            sign_BP = torch.where(true_BP, 1.0, -1.0).to(logits_BP.device)
            return -logsigmoid(sign_BP * logits_BP).sum(dim=1).mean()

        fit(
            [encoder.model, head],
            loss,
            steps=params.steps,
            learning_rate=params.learning_rate,
            log=log,
            description="image",
        )
    return encoder


def untrained(images: Sequence[Shown], params: ImageBackbone, *, seed: int) -> ImageEncoder:
    """The tower that `train_image` starts from: what its random features tell is the control of what it learnt."""
    with seeded(seed):
        encoder = _new(images, params)
    encoder.model.eval()
    return encoder


def _new(images: Sequence[Shown], params: ImageBackbone) -> ImageEncoder:
    return ImageEncoder.new(
        image_size=images[0].image.shape[0],
        patch_size=params.patch_size,
        hidden_size=params.hidden_size,
        layers=params.layers,
    )


def evaluate_image(encoder: ImageEncoder, train: Sequence[Shown], held_out: Sequence[Shown]) -> dict[str, float]:
    """Linear probes of what a crop shows, fitted on `train`, asked about other rooms; beside the commonest's share.

    `class_accuracy` asks for the class ("chair"), `attribute_accuracy` for the attribute ("red").
    """
    fitted, asked = _crops(train), _crops(held_out)
    x, y = encoder.encode(_stack(fitted)), encoder.encode(_stack(asked))
    classes = _probe(x, [c.label for c in fitted], y, [c.label for c in asked])
    attributes = _probe(x, [c.attribute for c in fitted], y, [c.attribute for c in asked])
    return {
        "class_accuracy": classes[0],
        "class_accuracy_commonest": classes[1],
        "attribute_accuracy": attributes[0],
        "attribute_accuracy_commonest": attributes[1],
    }


def _probe(
    train_ND: NDArray[np.float32], names: Sequence[str], asked_MD: NDArray[np.float32], wanted: Sequence[str]
) -> tuple[float, float]:
    """Accuracy of ridge regression onto the names, and the commonest name's share; images without a name left out."""
    known, asked = np.array([n != "" for n in names]), np.array([w != "" for w in wanted])
    if not known.any() or not asked.any():
        return 0.0, 0.0
    classes, target = np.unique(np.array(names)[known], return_inverse=True)
    mean, std = train_ND[known].mean(axis=0), train_ND[known].std(axis=0) + 1e-6
    x, y = (_with_one((rows - mean) / std) for rows in (train_ND[known], asked_MD[asked]))
    weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ np.eye(len(classes))[target])
    return accuracy(classes[(y @ weights).argmax(axis=1)].tolist(), np.array(wanted)[asked].tolist())


class _Head(nn.Module):
    """From pooled hidden states to logits against texts; not part of what is kept."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, text_width)
        self.scale = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.bias = nn.Parameter(torch.tensor(INITIAL_BIAS))

    def forward(self, pooled_BD: torch.Tensor, text_PC: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.scale.exp() * normalize(self.projection(pooled_BD), dim=-1) @ text_PC.T + self.bias
        return logits


def _short(image: Shown) -> frozenset[str]:
    return frozenset(text for text in image.texts if len(text.split()) <= SHORT_WORDS)


def _crops(images: Sequence[Shown]) -> list[Shown]:
    """The crops, or the whole views where there is no crop."""
    return [image for image in images if image.label] or list(images)


def _stack(images: Sequence[Shown]) -> NDArray[np.uint8]:
    return np.stack([image.image for image in images])


def _with_one(x: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64)
