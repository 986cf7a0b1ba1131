"""CIDEr-D, BLEU-1..4, ROUGE-L and METEOR of tokenised texts, each ready to be summed up or resampled.

Protocol and source: coco-caption's (see `captions` and `meteor`). CIDEr's document frequencies come from the references given.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1pipe.metrics.captions import NUM_GRAMS, Corpus, bleu, bleu_statistics, cider_d, rouge_l
from r1pipe.metrics.intervals import Measure, mean
from r1pipe.metrics.meteor import meteor, meteor_statistics

Measures = dict[str, Measure]


def ngrams(
    said: Sequence[str], references: Sequence[Sequence[str]], suffix: str = "", *, jar: Path | None = None
) -> Measures:
    """CIDEr-D, BLEU-1..4, ROUGE-L and, with its jar, METEOR of tokenised texts."""
    corpus = Corpus(said, references)
    statistics = bleu_statistics(corpus)
    bleus = {f"bleu_{n}{suffix}": Measure(statistics, partial(_bleu, n), len(said)) for n in range(1, NUM_GRAMS + 1)}
    found = {f"cider{suffix}": mean(cider_d(corpus)), **bleus, f"rouge_l{suffix}": mean(rouge_l(corpus))}
    if jar is not None:
        found[f"meteor{suffix}"] = Measure(meteor_statistics(jar, said, references), _meteor, len(said))
    return found


def _bleu(n: int, sums_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * bleu(sums_K)[..., n - 1])


def _meteor(sums_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * meteor(sums_K))
