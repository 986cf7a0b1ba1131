"""BLEU, CIDEr-D and ROUGE-L as coco-caption computes them, per sample and vectorised.

Source: the definitions in coco-caption (tylin/coco-caption, pycocoevalcap 1.2): Papineni et al. 2002 with the closest reference
length, Vedantam et al. 2015 (CIDEr-D, sigma 6, times 10), Lin 2004 (F-measure, beta 1.2). Texts come tokenised, tokens
separated by single spaces. Numbers are natural ones (BLEU and ROUGE-L 0..1, CIDEr 0..10); whoever prints multiplies by 100.

Shape suffixes: N samples, S sentences, T n-gram entries, B sets of samples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NUM_GRAMS = 4
"""Longest n-gram of BLEU and CIDEr."""
SIGMA = 6.0
"""Width of CIDEr-D's penalty on a difference in length."""
BETA = 1.2
"""Weight of recall in ROUGE-L."""


class _Table(NamedTuple):
    """The distinct n-grams of many sentences: row t says that `sentence[t]` holds `gram[t]` `times[t]` times."""

    sentence: Ints
    gram: Ints
    times: Ints


class Corpus:
    """Candidates and their references, one candidate and at least one reference a sample, indexed once for all metrics."""

    def __init__(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
        self.candidates = candidates
        self.references = references
        self.num_samples = len(candidates)
        flat = [text for texts in references for text in texts]
        self.owner_S = np.repeat(np.arange(self.num_samples), [len(texts) for texts in references])
        """The sample that each reference sentence belongs to."""
        words = [text.split() for text in (*candidates, *flat)]
        self.length_S = np.array([len(sentence) for sentence in words], dtype=np.int64)
        """Words in each candidate, then in each reference."""
        self._grams = _index(words, self.length_S)

    def tables(self, n: int) -> tuple[_Table, _Table]:
        """The n-grams (n = 1..4) of the candidates, and those of the references."""
        sentence_T, gram_T = self._grams[n - 1]
        table = _tally(sentence_T, gram_T)
        cut = np.searchsorted(table.sentence, self.num_samples)
        ours, theirs = (_Table(*(column[part] for column in table)) for part in (slice(cut), slice(cut, None)))
        return ours, theirs._replace(sentence=theirs.sentence - self.num_samples)


def _index(words: list[list[str]], length_S: Ints) -> list[tuple[Ints, Ints]]:
    """For n = 1..4 the sentence and the number of every n-gram occurrence."""
    vocabulary: dict[str, int] = {}
    token_T = np.fromiter((vocabulary.setdefault(w, len(vocabulary)) for s in words for w in s), dtype=np.int64)
    sentence_T = np.repeat(np.arange(len(words)), length_S)
    grams, gram_T = [(sentence_T, token_T)], token_T
    for n in range(2, NUM_GRAMS + 1):
        # An n-gram is the (n-1)-gram before it and the word that follows in the same sentence, numbered anew.
        inside = sentence_T[n - 1 :] == sentence_T[: len(sentence_T) - n + 1]
        longer = gram_T[: len(inside)] * (len(vocabulary) + 1) + token_T[n - 1 :]
        gram_T = np.full(len(token_T), -1, dtype=np.int64)
        gram_T[: len(inside)][inside] = np.unique(longer[inside], return_inverse=True)[1]
        grams.append((sentence_T[: len(inside)][inside], gram_T[: len(inside)][inside]))
        gram_T = np.maximum(gram_T, 0)  # what crosses a sentence's end is masked again in the next round
    return grams


def _tally(sentence_T: Ints, gram_T: Ints) -> _Table:
    """Distinct (sentence, n-gram) pairs with their counts, sorted."""
    width = int(gram_T.max(initial=0)) + 1
    key_T, count_T = np.unique(sentence_T * width + gram_T, return_counts=True)
    return _Table(key_T // width, key_T % width, count_T)


def _find(key_T: Ints, wanted_T: Ints) -> Ints:
    """Where each wanted key is in the sorted keys, -1 where it is not."""
    if len(key_T) == 0:
        return np.full(len(wanted_T), -1, dtype=np.int64)
    place_T = np.minimum(np.searchsorted(key_T, wanted_T), len(key_T) - 1)
    return np.where(key_T[place_T] == wanted_T, place_T, -1)


def _total(index_T: Ints, weight_T: NDArray[Any], length: int) -> Floats:
    """Sums of the weights by index, `(length,)`."""
    # bincount of nothing is whole numbers, whatever the weights are.
    return np.bincount(index_T, weight_T, minlength=length).astype(np.float64)


def bleu_statistics(corpus: Corpus) -> Floats:
    """What corpus BLEU adds up: `(N, 10)`, clipped matches of 1..4-grams, candidate n-grams, candidate and reference length."""
    columns = []
    for n in range(1, NUM_GRAMS + 1):
        ours, theirs = corpus.tables(n)
        width = int(max(ours.gram.max(initial=0), theirs.gram.max(initial=0))) + 1
        key_T, group_T = np.unique(corpus.owner_S[theirs.sentence] * width + theirs.gram, return_inverse=True)
        most_T = np.zeros(len(key_T), dtype=np.int64)
        np.maximum.at(most_T, group_T, theirs.times)
        place_T = _find(key_T, ours.sentence * width + ours.gram)
        hit = place_T >= 0
        clipped = np.minimum(ours.times[hit], most_T[place_T[hit]])
        columns.append(_total(ours.sentence[hit], clipped, corpus.num_samples))
    length_N = corpus.length_S[: corpus.num_samples]
    columns += [np.maximum(length_N - n, 0) for n in range(NUM_GRAMS)]
    return np.stack([*columns, length_N, _closest_lengths(corpus)], axis=1).astype(np.float64)


def _closest_lengths(corpus: Corpus) -> Ints:
    """Per sample the reference length nearest to the candidate's, the shorter one on ties."""
    length_N, length_S = np.split(corpus.length_S, [corpus.num_samples])
    order = np.lexsort((length_S, np.abs(length_S - length_N[corpus.owner_S]), corpus.owner_S))
    first = np.searchsorted(corpus.owner_S, np.arange(corpus.num_samples))
    return np.asarray(length_S[order][first])


def bleu(sums_B10: Floats) -> Floats:
    """BLEU-1..4 of sets of samples, `(..., 4)`, from the sums of their `bleu_statistics`, `(..., 10)`."""
    tiny, small = 1e-15, 1e-9  # coco-caption's constants; they keep an empty match from ending in log 0
    matches, guesses, ours, theirs = np.split(sums_B10, [4, 8, 9], axis=-1)
    precision = np.cumprod((matches + tiny) / (guesses + small), axis=-1) ** (1 / np.arange(1, NUM_GRAMS + 1))
    ratio = (ours + tiny) / (theirs + small)
    return np.asarray(precision * np.exp(np.minimum(0, 1 - 1 / ratio)))


def smoothed_bleu(statistics_N10: Floats) -> Floats:
    """BLEU-1..4 of each sample, `(N, 4)`, with 0.1 where no n-gram matches.

    Source: nltk's `sentence_bleu` with smoothing method 1 (Chen and Cherry 2014) and PointLLM's weights: BLEU-3's are 0.33 each.
    A sample without any matching word scores 0.
    """
    matches, guesses, ours, theirs = np.split(statistics_N10, [4, 8, 9], axis=-1)
    precision = np.where(matches > 0, matches, 0.1) / np.maximum(guesses, 1)
    weights = np.tril(np.ones((NUM_GRAMS, NUM_GRAMS))) * np.array([[1], [0.5], [0.33], [0.25]])
    brevity = np.exp(np.minimum(0, 1 - theirs / np.maximum(ours, 1)))
    return np.asarray(np.where(matches[:, :1] > 0, brevity * np.exp(np.log(precision) @ weights.T), 0.0))


def cider_d(corpus: Corpus) -> Floats:
    """CIDEr-D of each sample, `(N,)`, 0..10; document frequencies come from these references, so a part scores unlike the whole.

    One sample alone scores 0: every n-gram is in every document.
    """
    length_S = np.maximum(corpus.length_S - 1, 0)  # coco-caption's length is the number of bigrams
    ours_N, theirs_S = np.split(length_S, [corpus.num_samples])
    score_S = np.zeros(len(corpus.owner_S))
    for n in range(1, NUM_GRAMS + 1):
        score_S += _cosines(*corpus.tables(n), corpus.owner_S, corpus.num_samples)
    score_S *= np.exp(-((ours_N[corpus.owner_S] - theirs_S) ** 2) / (2 * SIGMA**2)) / NUM_GRAMS
    total_N = _total(corpus.owner_S, score_S, corpus.num_samples)
    return np.asarray(10 * total_N / np.bincount(corpus.owner_S, minlength=corpus.num_samples))


def _cosines(ours: _Table, theirs: _Table, owner_S: Ints, num_samples: int) -> Floats:
    """Per reference sentence the clipped tf-idf cosine with its sample's candidate, `(S,)`, for one length of n-grams."""
    width = int(max(ours.gram.max(initial=0), theirs.gram.max(initial=0))) + 1
    document_T = np.unique(owner_S[theirs.sentence] * width + theirs.gram) % width
    idf = np.log(num_samples) - np.log(np.maximum(np.bincount(document_T, minlength=width), 1))
    mine_T, other_T = ours.times * idf[ours.gram], theirs.times * idf[theirs.gram]
    place_T = _find(ours.sentence * width + ours.gram, owner_S[theirs.sentence] * width + theirs.gram)
    hit = place_T >= 0
    shared = np.minimum(mine_T[place_T[hit]], other_T[hit]) * other_T[hit]
    dot_S = _total(theirs.sentence[hit], shared, len(owner_S))
    norm_N = np.sqrt(_total(ours.sentence, mine_T**2, num_samples))
    norm_S = np.sqrt(_total(theirs.sentence, other_T**2, len(owner_S)))
    norm = norm_N[owner_S] * norm_S
    return np.asarray(np.divide(dot_S, norm, out=np.zeros_like(dot_S), where=norm > 0))


def rouge_l(corpus: Corpus) -> Floats:
    """ROUGE-L of each sample, `(N,)`, 0..1; precision and recall take their best reference each on its own, as coco-caption's do."""
    scores = (_rouge(ours, theirs) for ours, theirs in zip(corpus.candidates, corpus.references, strict=True))
    return np.fromiter(scores, dtype=np.float64, count=corpus.num_samples)


def _rouge(candidate: str, references: Sequence[str]) -> float:
    ours, theirs = candidate.split(" "), [text.split(" ") for text in references]  # an empty text is one empty token
    masks: dict[str, int] = {}
    for position, token in enumerate(ours):
        masks[token] = masks.get(token, 0) | 1 << position
    common = [_longest_common(masks, len(ours), tokens) for tokens in theirs]
    precision = max(common) / len(ours)
    recall = max(count / len(tokens) for count, tokens in zip(common, theirs, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common(masks: dict[str, int], length: int, tokens: list[str]) -> int:
    """Length of the longest common subsequence, a row of the table in the bits of one integer (Hyyrö 2004)."""
    full = (1 << length) - 1
    row = full
    for token in tokens:
        match = row & masks.get(token, 0)
        row = ((row + match) | (row - match)) & full
    return length - row.bit_count()
