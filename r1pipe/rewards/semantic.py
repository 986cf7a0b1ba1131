"""Does the answer mean what the reference means? (paper, section 3.2, CLIP text similarity)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from r1pipe.rewards.completion import Completion, responses


class TextEncoder(Protocol):
    """What embeds texts; `models.clip.Clip` does."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(N, C)`, unit length."""


class SemanticReward:
    """Cosine of the text embeddings of answer and reference, the best over references, less a baseline, clipped at 0.

    A class, not a closure: TRL names a reward by `__name__`. Embeddings are kept by text.
    """

    __name__ = "semantic_reward"
    max_cached = 20_000

    def __init__(self, text_encoder: TextEncoder, *, baseline: float) -> None:
        """A cosine up to `baseline`, in [0, 1), is worth 0, and what lies above is stretched to reach 1."""
        self.text_encoder = text_encoder
        self.baseline = baseline
        self._embeddings: dict[str, NDArray[np.float32]] = {}

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        references: Sequence[Sequence[str] | None],
        think: Sequence[bool],
        **_: Any,
    ) -> list[float | None]:
        """0..1 a completion; None where the sample has no textual reference, 0 where the completion breaks the grammar."""
        said = responses(completions, think)
        pairs = [(r.answer if r is not None else "", refs or ()) for r, refs in zip(said, references, strict=True)]
        self._embed({text for answer, refs in pairs if answer for text in (answer, *refs)})
        return [self._similarity(answer, refs) if refs else None for answer, refs in pairs]

    def _similarity(self, answer: str, references: Sequence[str]) -> float:
        if not answer:
            return 0.0
        wanted = np.stack([self._embeddings[text] for text in references])
        cosine = float(np.clip(wanted @ self._embeddings[answer], 0.0, 1.0).max())
        return max(0.0, (cosine - self.baseline) / (1.0 - self.baseline))

    def _embed(self, texts: set[str]) -> None:
        """Embed what is new, in one batch."""
        if len(self._embeddings) > self.max_cached:
            self._embeddings.clear()  # what this batch needs is embedded anew below
        new = sorted(texts - self._embeddings.keys())
        if new:
            self._embeddings.update(zip(new, self.text_encoder.encode_text(new), strict=True))

    def save(self, path: Path) -> None:
        """Write the embeddings kept so far, for a run that goes on: embedded in other company their last bits differ."""
        kept = np.stack([*self._embeddings.values()]) if self._embeddings else np.zeros((0, 0), np.float32)
        save_file({"embeddings": kept}, path, metadata={"texts": json.dumps([*self._embeddings])})

    def load(self, path: Path) -> None:
        """Keep the embeddings that `save` wrote, and no others."""
        with safe_open(path, "numpy") as file:
            texts, kept = json.loads(file.metadata()["texts"]), file.get_tensor("embeddings")
        self._embeddings = dict(zip(texts, kept, strict=True))
