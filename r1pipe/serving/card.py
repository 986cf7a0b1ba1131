"""The card of a packaged model, as Markdown: what it is, what it was made from, how good it is and where it stops."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from r1pipe.datasets.licences import licence

SHIPPED = "grpo"
"""The arm that is packaged; the table has it first."""

HEADLINES = (
    ("qa", "em"),
    ("situated", "em"),
    ("grounding", "acc_25"),
    ("grounding", "acc_50"),
    ("multi-grounding", "f1_25"),
    ("multi-grounding", "f1_50"),
    ("captioning", "cider_50"),
    ("dialogue", "cider"),
    ("planning", "cider"),
    ("reward", "total"),
)
"""What the card shows of the metrics, where it was measured."""

Metrics = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def card(lineage: Mapping[str, Any]) -> str:
    """The model card of a lineage."""
    params = lineage["params"]
    environment = Environment(
        loader=PackageLoader("r1pipe", "serving"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )  # fmt: skip
    tasks = sorted({*params["sft"]["tasks"], *params["grpo"]["tasks"]})
    arms = sorted(lineage["metrics"], key=lambda arm: arm != SHIPPED)
    return environment.get_template("model_card.md.j2").render(
        **lineage,
        scenes=lineage["data"]["scenes"],
        thinking=[task for task in tasks if params["think"][task]],
        untrained=_untrained(tasks, list(params["think"])),
        arms=arms,
        rows=headlines({arm: lineage["metrics"][arm] for arm in arms}),
        shipped=SHIPPED,
        loaded=_loaded(params),
        origin=_origin,
        licence=licence,
    )


def headlines(metrics: Metrics) -> list[dict[str, Any]]:
    """A row a headline metric that was measured: its scores, one an arm, None where an arm has none."""
    rows = []
    for task, metric in HEADLINES:
        scores = [tasks.get(task, {}).get(metric) for tasks in metrics.values()]
        counts = {score["n"] for score in scores if score is not None}
        if counts:
            rows.append({"task": task, "metric": metric, "n": max(counts), "scores": scores})
    return rows


def _untrained(tasks: list[str], known: list[str]) -> str:
    others = [task for task in known if task not in tasks]
    return f"It was trained for {', '.join(tasks)}" + (f", not for {', '.join(others)}." if others else ".")


def _origin(name: str | None, version: str | None) -> str:
    """Where weights come from: a model by name and version, or this run."""
    if name is None:
        return "trained from scratch"
    return f"{name} ({version})" if version else name


def _loaded(params: Mapping[str, Any]) -> list[str]:
    """The pretrained models that the weights are made from."""
    backbones = params["backbones"]
    names = [params["model"]["language"], *(backbones[part]["model"] for part in ("clip", "image", "depth"))]
    return [name for name in (*names, backbones["points"]["weights"]) if name is not None]
