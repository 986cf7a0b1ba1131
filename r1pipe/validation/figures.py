"""How well the filters find what was done wrong on purpose: precision and recall with their intervals."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scipy.stats import binomtest


class Share(NamedTuple):
    """So many of so many, and the 95 % interval of the share (Wilson), 0..1; None of nothing."""

    hits: int
    n: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, hits: int, n: int) -> "Share":
        """The share of `hits` in `n`."""
        if n == 0:
            return cls(hits, n, None, None, None)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        return cls(hits, n, hits / n, float(interval.low), float(interval.high))


class Figure(NamedTuple):
    """What became of one kind of fault."""

    fault: str
    filter: str
    """The one that is to catch it."""

    recall: Share
    """Of the texts with this fault, those that this filter rejected."""

    precision: Share
    """Of the texts that this filter rejected, those with a fault that it is to catch."""


def fault_figures(
    faults: Iterable[tuple[str | None, str | None]], kinds: Iterable[str], caught_by: Mapping[str, str]
) -> list[Figure]:
    """Recall of each kind of fault and precision of its filter.

    Args:
        faults: what was done wrong on purpose and the reject reason, of each text; None for nothing.
        kinds: every kind of fault, those that no text has too.
        caught_by: the filter that is to catch a kind, where it has another name.
    """
    pairs = list(faults)
    named = [(caught_by.get(fault, fault) if fault is not None else None, reason) for fault, reason in pairs]
    figures = []
    for kind in kinds:
        name = caught_by.get(kind, kind)
        injected = [reason for fault, reason in pairs if fault == kind]
        rejected = [wanted for wanted, reason in named if reason == name]
        figures.append(
            Figure(
                kind,
                name,
                recall=Share.of(injected.count(name), len(injected)),
                precision=Share.of(rejected.count(name), len(rejected)),
            )
        )
    return figures
