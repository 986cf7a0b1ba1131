"""CIDEr-D, BLEU-1..4, ROUGE-L and METEOR of tokenised texts, each ready to be summed up or resampled.

Protocol and source: coco-caption's (see `captions` and `meteor`). CIDEr's document frequencies come from the references given.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1pipe.metrics.captions import NUM_GRAMS, Corpus, bleu, bleu_statistics, cider_d, rouge_l, smoothed_bleu
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


def sentence_scores(
    said: Sequence[str], references: Sequence[Sequence[str]], *, jar: Path | None = None
) -> dict[str, NDArray[np.float64]]:
    """The same metrics of each sample by itself, `(N,)`, CIDEr 0..10 and the others 0..1; CIDEr's frequencies are the corpus's."""
    corpus = Corpus(said, references)
    bleu_N4 = bleu(bleu_statistics(corpus))
    bleus = {f"bleu_{n}": bleu_N4[:, n - 1] for n in range(1, NUM_GRAMS + 1)}
    found = {"cider": cider_d(corpus), **bleus, "rouge_l": rouge_l(corpus)}
    return found if jar is None else found | {"meteor": meteor(meteor_statistics(jar, said, references))}


def mean_smoothed_bleu(said: Sequence[str], references: Sequence[Sequence[str]]) -> Measures:
    """BLEU-1..4 as the mean over samples, smoothed as nltk does it."""
    bleu_N4 = smoothed_bleu(bleu_statistics(Corpus(said, references)))
    return {f"bleu_{n}": mean(bleu_N4[:, n - 1]) for n in range(1, NUM_GRAMS + 1)}


def _bleu(n: int, sums_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * bleu(sums_K)[..., n - 1])


def _meteor(sums_K: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(100 * meteor(sums_K))
