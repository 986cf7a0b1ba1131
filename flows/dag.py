"""The stages of dvc.yaml: what each waits for, where it may run, and which of them a run is about."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo

from r1pipe.errors import DataError


class Node(NamedTuple):
    """A stage of dvc.yaml."""

    upstream: tuple[str, ...]
    worker: str
    """`cpu` or `gpu`, from the stage's `meta`."""

    metrics: tuple[Path, ...]
    """Its metrics files, relative to the root."""


Dag = dict[str, Node]
"""By name, in an order in which they can run."""


def read_dag(root: Path = Path()) -> Dag:
    """The stages of a checkout."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph
        nodes = {
            stage.name: Node(
                tuple(sorted(upstream.name for upstream in graph.successors(stage))),
                stage.meta["worker"],
                tuple(Path(out.def_path) for out in stage.outs if out.metric),
            )
            for stage in graph
        }
    ordered: Dag = {}
    while len(ordered) < len(nodes):
        ready = sorted(s for s in nodes if s not in ordered and all(u in ordered for u in nodes[s].upstream))
        ordered.update({stage: nodes[stage] for stage in ready})
    return ordered


def choose(dag: Mapping[str, Node], *, start_from: str | None = None, stop_after: str | None = None) -> list[str]:
    """The stages from one on, up to another, in order; whatever is beside their path is left out.

    Raises:
        DataError: if there is no such stage, or no way from the one to the other.
    """
    require(dag, [stage for stage in (start_from, stop_after) if stage])
    first = _with_descendants(dag, start_from) if start_from else set(dag)
    last = _with_ancestors(dag, stop_after) if stop_after else set(dag)
    if not first & last:
        raise DataError(f"Expected stage {stop_after} to follow {start_from}, found no way from one to the other.")
    return [stage for stage in dag if stage in first & last]


def require(dag: Mapping[str, Node], names: list[str]) -> None:
    """Refuse a stage that is not in dvc.yaml.

    Raises:
        DataError: with the stages that there are.
    """
    if unknown := [name for name in names if name not in dag]:
        raise DataError(f"Expected stages among {', '.join(dag)}, found {', '.join(unknown)}.")


def _with_ancestors(dag: Mapping[str, Node], stage: str) -> set[str]:
    return {stage}.union(*(_with_ancestors(dag, upstream) for upstream in dag[stage].upstream))


def _with_descendants(dag: Mapping[str, Node], stage: str) -> set[str]:
    return {name for name in dag if stage in _with_ancestors(dag, name)}
