"""The results as a table for the terminal, and what they prove in one sentence."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from r1pipe.params.section import EvaluatedTask

Metrics = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


class Column(NamedTuple):
    """A headline number."""

    title: str
    task: EvaluatedTask | Literal["reward"]
    metric: str


EXACT_MATCH = Column("exact match", "qa", "em")
ACC_25, ACC_50 = Column("Acc@0.25", "grounding", "acc_25"), Column("Acc@0.5", "grounding", "acc_50")
CIDER_50 = Column("CIDEr@0.5", "captioning", "cider_50")
REWARD = Column("mean reward", "reward", "total")
COLUMNS = (EXACT_MATCH, ACC_25, ACC_50, CIDER_50, REWARD)
SUMMARY = (
    ("em", "grpo", EXACT_MATCH),
    ("acc_25", "grpo", ACC_25),
    ("cider_50", "grpo", CIDER_50),
    ("reward", "grpo", REWARD),
    ("sft_em", "sft", EXACT_MATCH),
    ("blind_em", "blind", EXACT_MATCH),
)
"""Name, arm and number of what tells experiments apart: short and few, so that DVC's table has room for parameters."""

SEEING = ("sft", "grpo")
"""The arms that must beat the blind one."""
LEAST_GAP = 20.0
"""Points of exact match and of Acc@0.25 by which they must."""


class Gap(NamedTuple):
    """By how much an arm beats the blind one."""

    arm: str
    column: Column
    points: float


def columns(metrics: Metrics) -> list[Column]:
    """The headline numbers that were measured in every arm."""
    return [c for c in COLUMNS if all(c.metric in tasks.get(c.task, {}) for tasks in metrics.values())]


def cell(found: Mapping[str, Any]) -> str:
    r"""A number, and below it its 95 % interval.

    >>> cell({"value": 91.25, "low": 88.0, "high": 94.125, "n": 240})
    '91.2\n[88.0,94.1]'
    """
    return f"{found['value']:.1f}\n[{found['low']:.1f},{found['high']:.1f}]"


def summary(metrics: Metrics) -> dict[str, float]:
    """The numbers of `SUMMARY` that were measured, to one decimal."""
    return {
        name: round(_value(metrics, arm, column), 1)
        for name, arm, column in SUMMARY
        if column.metric in metrics[arm].get(column.task, {})
    }


def results_table(metrics: Metrics) -> Table:
    """The headline numbers of every arm, with 95 % intervals and counts; below them, the gaps to blind in a sentence.

    It fits into 80 columns.
    """
    title, caption = "Results, 0 to 100, with 95 % intervals", gaps_sentence(metrics)
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("arm")
    shown, first = columns(metrics), next(iter(metrics.values()))
    for column in shown:
        count = first[column.task][column.metric]["n"]
        table.add_column(f"{column.title}\nn={count}", justify="right", no_wrap=True)
    for arm, tasks in metrics.items():
        # A row has two lines anyway, and 80 columns have no room for a long name in one.
        table.add_row(arm.replace("_", "_\n"), *(cell(tasks[column.task][column.metric]) for column in shown))
    return table


def gaps(metrics: Metrics) -> list[Gap]:
    """How far sft and grpo are above blind, in exact match and Acc@0.25."""
    proofs = [column for column in columns(metrics) if column.metric in ("em", "acc_25")]
    return [Gap(arm, c, _value(metrics, arm, c) - _value(metrics, "blind", c)) for arm in SEEING for c in proofs]


def _value(metrics: Metrics, arm: str, column: Column) -> float:
    return float(metrics[arm][column.task][column.metric]["value"])


def looks_at_the_scene(metrics: Metrics) -> bool:
    """Whether every gap to blind is at least `LEAST_GAP` points."""
    found = gaps(metrics)
    return bool(found) and all(gap.points >= LEAST_GAP for gap in found)


def gaps_sentence(metrics: Metrics) -> str:
    """What the gaps to blind are, and whether they prove that the model looks at the scene."""
    found = gaps(metrics)
    if not found:
        return "Neither exact match nor Acc@0.25 was measured, so nothing shows whether the model looks at the scene."
    told = "; ".join(
        f"{arm} " + ", ".join(f"{gap.points:+.1f} {gap.column.title}" for gap in found if gap.arm == arm)
        for arm in SEEING
    )
    verdict = (
        f"each at least {LEAST_GAP:.0f} points: the model looks at the scene"
        if looks_at_the_scene(metrics)
        else f"not each at least {LEAST_GAP:.0f} points: not proven that the model looks at the scene"
    )
    return f"Against blind: {told}; {verdict}."
