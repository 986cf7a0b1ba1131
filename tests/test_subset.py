"""Which samples are drafted: sources in equal shares, always the same ones, more of them only added."""

import pytest

from r1pipe.datasets.subset import equal_shares, stable_subset

SOURCES = {"scanqa": 700, "sqa3d": 40, "nr3d": 300, "3dllm": 5}
ROWS = {f"{source}-{i}": source for source, size in SOURCES.items() for i in range(size)}


def of(source, ids):
    return {sample_id for sample_id in ids if ROWS[sample_id] == source}


@pytest.mark.parametrize(
    ("total", "shares"),
    [
        (0, {"scanqa": 0, "sqa3d": 0, "nr3d": 0, "3dllm": 0}),
        (20, {"scanqa": 5, "sqa3d": 5, "nr3d": 5, "3dllm": 5}),
        (100, {"scanqa": 32, "sqa3d": 31, "nr3d": 32, "3dllm": 5}),
        (500, {"scanqa": 228, "sqa3d": 40, "nr3d": 227, "3dllm": 5}),
        (5000, SOURCES),
    ],
)
def test_what_a_small_source_cannot_give_is_taken_from_the_others(total, shares):
    assert equal_shares(SOURCES, total) == shares


@pytest.mark.parametrize("total", [1, 7, 21, 99, 500, 1044])
def test_a_larger_number_only_adds(total):
    fewer, more = stable_subset(ROWS, total), stable_subset(ROWS, total + 1)
    assert len(fewer) == total
    assert len(more) == total + 1
    assert fewer < more


def test_what_else_is_there_does_not_change_which_of_a_source_are_taken():
    alone = stable_subset(dict.fromkeys(of("nr3d", ROWS), "nr3d"), 60)
    beside = of("nr3d", stable_subset(dict(reversed(ROWS.items())), 100))
    assert len(beside) == 32
    assert beside < alone
    assert beside != set(sorted(of("nr3d", ROWS))[:32])


def test_without_a_number_all_are_taken():
    assert stable_subset(ROWS, None) == set(ROWS)
