"""Which samples are drafted where not all can be paid: of every source as many, always the same ones."""

from collections import defaultdict
from collections.abc import Mapping

from r1pipe.datasets.sample import lot


def stable_subset(sources: Mapping[str, str], count: int | None) -> set[str]:
    """The ids of at most `count` samples, of every source an equal share as far as it has them.

    Within a source the first by a hash of the id: a larger `count` only adds, and new samples of one source change nothing
    within another than how many are taken.

    Args:
        sources: of every sample by its id, what `Sample.source` says.
        count: null for all.
    """
    if count is None:
        return set(sources)
    ids: dict[str, list[str]] = defaultdict(list)
    for sample_id, source in sources.items():
        ids[source].append(sample_id)
    shares = equal_shares({source: len(members) for source, members in ids.items()}, count)
    return {sample_id for source, members in ids.items() for sample_id in sorted(members, key=lot)[: shares[source]]}


def equal_shares(available: Mapping[str, int], total: int) -> dict[str, int]:
    """So many of each that together they are `total`, or all: what one has too few of is taken from the others."""
    shares: dict[str, int] = {}
    left = total
    for name in sorted(available, key=lambda name: (available[name], name)):
        shares[name] = min(available[name], left // (len(available) - len(shares)))
        left -= shares[name]
    return shares
