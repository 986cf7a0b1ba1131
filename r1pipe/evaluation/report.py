"""The report: everything that was measured, on one page that needs nothing but itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from r1pipe.evaluation.charts import Bar, interval_chart, line_chart
from r1pipe.evaluation.examples import Example
from r1pipe.evaluation.looking import TUNED
from r1pipe.evaluation.rooms import PREDICTED, TARGET
from r1pipe.evaluation.series import Series
from r1pipe.evaluation.sheet import Tile
from r1pipe.evaluation.table import columns, gaps_sentence, looks_at_the_scene

Metrics = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
Courses = Mapping[str, Series]

ARM_NOTES = {
    "sft": "fine-tuned on the validated chains of thought",
    "grpo": "sft, then reinforced with GRPO",
    "control_prompts": "sft continued for GRPO's steps without rewards, on as many prompts a step",
    "control_sequences": "the same, on as many samples a step as GRPO takes sequences",
    "blind": "grpo with the scene zeroed: what the question alone gives away",
}
GALLERIES = {
    "by lot": ("Some questions", "Chosen by a hash of their ids, not by hand."),
    "best": (
        f"Best of {TUNED}",
        "Answers rank by whether they are right, then by reward; boxes by IoU, then by reward; captions by CIDEr at IoU 0.5. Of equals, the lot decides.",
    ),
    "worst": (f"Worst of {TUNED}", "From the other end of the same order."),
}
"""By kind: heading, and how the examples were chosen."""

GROUPS = {
    "qa": ("em_", ("em_refined",), "Exact match by question type"),
    "grounding": ("_acc_25", (), "Acc@0.25 by kind of query"),
}
"""Per task: what a group's metric starts or ends with, what only looks like one, the heading."""


class Shown(NamedTuple):
    """An example with its pictures."""

    example: Example
    room: str
    """A data URI, see `rooms`."""

    sheet: list[Tile]
    """What the tuned model could look at."""


class Gallery(NamedTuple):
    """Examples that were chosen in one way."""

    kind: str
    """`by lot`, `best` or `worst`."""

    shown: list[Shown]


@dataclass(frozen=True)
class Findings:
    """What the report shows."""

    metrics: Metrics
    provenance: Mapping[str, Any]
    """What evaluate's numbers rest on, see `provenance`."""

    lineage: Mapping[str, Any]
    """What the run was made from, see `lineage`."""

    backbones: Mapping[str, Any]
    validation: Mapping[str, Any]
    """What stage `validate` found, see `validation.summary`."""

    data_docs: str
    """Where its Data Docs are, as seen from the page."""

    costs: str
    """Where the picture of times and memory is, as seen from the page. It is no part of the page: it differs from run to run."""

    courses: Mapping[str, Courses]
    """By training stage."""

    movement: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By training: of each part, the share of weights that changed, the relative norm of the change, the learning rate."""

    galleries: Sequence[Gallery]
    """Examples for a person to read."""

    looking: Mapping[str, Mapping[str, float]]
    """Whether the chosen views follow the question, see `looking.follow`."""

    ablations: Sequence[Mapping[str, Any]]
    """What `r1pipe ablate` kept: title, commit, and rows of cells by variant and column."""

    procedural: bool
    """Whether the rooms are procedural, so that published numbers are no comparison."""


class Chart(NamedTuple):
    """A figure with its heading and legend."""

    title: str
    svg: Markup
    legend: list[str]


class Panel(NamedTuple):
    """A chart that may not exist."""

    title: str
    stage: str
    names: tuple[str, ...]
    """Endings of the courses' names; all that match are drawn."""


PANELS = (
    Panel("GRPO: mean reward on held-out prompts, always the same", "grpo", ("eval_reward",)),
    Panel("GRPO: mean reward on each step's prompts", "grpo", ("reward",)),
    Panel("GRPO: each reward's mean", "grpo", ("rewards/*/mean",)),
    Panel("SFT: loss", "sft", ("loss",)),
    Panel("SFT: weights of the view selector", "sft", ("views/*",)),
    Panel("GRPO: weights of the view selector", "grpo", ("views/*",)),
    Panel("Controls: loss", "control", ("*/loss",)),
)


def render(findings: Findings) -> str:
    """The page as HTML, the same bytes for the same findings."""
    environment = Environment(
        loader=PackageLoader("r1pipe", "evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters |= {"number": number, "fixed": lambda value, digits: f"{value:.{digits}f}"}
    return environment.get_template("report.html.j2").render(
        found=findings,
        columns=columns(findings.metrics),
        headlines=_headlines(findings.metrics),
        sentence=gaps_sentence(findings.metrics),
        proven=looks_at_the_scene(findings.metrics),
        notes=ARM_NOTES,
        galleries=GALLERIES,
        groups=_groups(findings.metrics),
        charts=_charts(findings.courses),
        missing=[panel.title for panel in PANELS if not _matching(findings.courses, panel)],
        backbones=list(flatten(findings.backbones)),
        rejects=_rejects(findings.validation),
        gate=findings.validation,
        data_docs=findings.data_docs,
        lineage=list(flatten({**findings.lineage, **findings.provenance})),
        pencils={"target": TARGET.colour, "predicted": PREDICTED.colour},
        tuned=TUNED,
        published=json.loads(files("r1pipe.evaluation").joinpath("published.json").read_text(encoding="utf-8")),
    )


def number(value: Any) -> str:
    """A cell: fractional numbers to five significant digits, anything else as it is."""
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)


def _headlines(metrics: Metrics) -> list[Chart]:
    """An interval chart a headline number, one row an arm."""
    charts = []
    for column in columns(metrics):
        found = {arm: tasks[column.task][column.metric] for arm, tasks in metrics.items()}
        bars = [Bar(arm, m["value"], m["low"], m["high"], f"var(--{arm})") for arm, m in found.items()]
        charts.append(Chart(column.title, interval_chart(bars, f"{column.title} of each arm"), []))
    return charts


class Group(NamedTuple):
    """A table of one metric over kinds of questions."""

    title: str
    rows: list[tuple[str, str, str]]
    """Name to show, task, metric."""


def _groups(metrics: Metrics) -> list[Group]:
    first = next(iter(metrics.values()))
    groups = []
    for task, (affix, unlike, title) in GROUPS.items():
        names = [m for m in first.get(task, {}) if (m.startswith(affix) or m.endswith(affix)) and m not in unlike]
        rows = [(name.removeprefix(affix).removesuffix(affix).replace("_", " "), task, name) for name in names]
        groups += [Group(title, rows)] if rows else []
    return groups


def _charts(courses: Mapping[str, Courses]) -> list[Chart]:
    charts = []
    for panel in PANELS:
        drawn = _matching(courses, panel)
        if drawn:
            charts.append(Chart(panel.title, line_chart(drawn, panel.title), list(drawn)))
    return charts


def _matching(courses: Mapping[str, Courses], panel: Panel) -> dict[str, Series]:
    """The courses of a panel; a star stands for one part of a name and is what the legend shows."""
    found = {}
    for pattern in panel.names:
        before, star, after = pattern.partition("*")
        for name, series in courses.get(panel.stage, {}).items():
            if name == pattern or (star and name.startswith(before) and name.endswith(after) and len(name) > len(before + after)):  # fmt: skip
                found[name.removeprefix(before).removesuffix(after) if star else name] = series
    return found


def _rejects(validation: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """Reason, count and share of the most frequent one, the most frequent first."""
    counts = validation.get("rejects", {})
    most = max(counts.values(), default=0)
    return [
        (reason, count, 100 * count / most if most else 0)
        for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dictionaries with its path.

    >>> list(flatten({"a": {"b": 1}, "c": [1, 2]}))
    [('a / b', 1), ('c', '1, 2')]
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flatten(part, f"{name} / {key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
