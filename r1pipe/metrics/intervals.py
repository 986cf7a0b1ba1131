"""Bootstrap intervals: how much a number would move with another draw of samples.

A metric is a function of sums over samples: a mean is hits over count, corpus BLEU a function of ten sums. One resampling of the
samples therefore serves every metric of a task at once. CIDEr is resampled as the mean of per-sample scores whose document
frequencies stay those of the full references.

Shape suffixes: N samples, K summed statistics, B resamples.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CHUNK = 4_000_000
"""Draws held in memory at once."""


class Measure(NamedTuple):
    """A metric over some samples, before it is summed up."""

    statistics: Floats
    """`(N, K)`: what each sample adds; a sample outside the metric's group adds zeros."""

    combine: Callable[[Floats], Floats]
    """Sums `(..., K)` to the metric `(...)`, 0..100."""

    num_samples: int

    @property
    def value(self) -> float:
        """The metric over all samples."""
        return float(self.combine(self.statistics.sum(axis=0)))


class Interval(NamedTuple):
    """A metric and the middle 95 % of its bootstrap distribution."""

    value: float
    low: float
    high: float
    n: int


def mean(scores_N: Floats, group_N: NDArray[np.bool_] | None = None) -> Measure:
    """The mean of per-sample scores, times 100, over a group or over all."""
    weights = np.ones(len(scores_N)) if group_N is None else group_N.astype(np.float64)
    return Measure(np.stack([scores_N * weights, weights], axis=1), _percentage, int(weights.sum()))


def _percentage(sums_K: Floats) -> Floats:
    count = sums_K[..., 1]
    return np.asarray(100 * np.divide(sums_K[..., 0], count, out=np.full_like(count, np.nan), where=count > 0))


def intervals(measures: Mapping[str, Measure], *, resamples: int, seed: int) -> dict[str, Interval]:
    """A 95 % percentile bootstrap interval for each metric over the same samples.

    A resample in which a metric's group is empty says nothing about it and is left out.
    """
    return {
        name: Interval(measures[name].value, *_middle(draws_B), measures[name].num_samples)
        for name, draws_B in _resample(measures, resamples=resamples, seed=seed).items()
    }


def differences(
    first: Mapping[str, Measure], second: Mapping[str, Measure], *, resamples: int, seed: int
) -> dict[str, Interval]:
    """Second minus first, paired: each resample draws the same samples for both."""
    ours, theirs = (_resample(measures, resamples=resamples, seed=seed) for measures in (first, second))
    return {
        name: Interval(
            second[name].value - first[name].value, *_middle(theirs[name] - ours[name]), first[name].num_samples
        )
        for name in ours
    }


def _middle(draws_B: Floats) -> tuple[float, float]:
    low, high = np.nanpercentile(draws_B, [2.5, 97.5])
    return float(low), float(high)


def _resample(measures: Mapping[str, Measure], *, resamples: int, seed: int) -> dict[str, Floats]:
    """Each metric over `resamples` draws with replacement, `(B,)`."""
    rng = np.random.default_rng(seed)
    stacked_NK = np.concatenate([measure.statistics for measure in measures.values()], axis=1)
    count = len(stacked_NK)
    rows = max(1, CHUNK // count)
    parts = [_sums(stacked_NK, min(rows, resamples - start), rng) for start in range(0, resamples, rows)]
    sums_BK = np.concatenate(parts)
    edges = np.cumsum([measure.statistics.shape[1] for measure in measures.values()])[:-1]
    columns = np.split(sums_BK, edges, axis=1)
    return {name: measure.combine(part) for (name, measure), part in zip(measures.items(), columns, strict=True)}


def _sums(statistics_NK: Floats, rows: int, rng: np.random.Generator) -> Floats:
    """Sums of the statistics over `rows` draws of N samples with replacement."""
    count = len(statistics_NK)
    drawn_BN = rng.integers(0, count, size=(rows, count)) + np.arange(rows)[:, None] * count
    times_BN = np.bincount(drawn_BN.ravel(), minlength=rows * count).reshape(rows, count)
    return np.asarray(times_BN.astype(np.float64) @ statistics_NK)
