"""The stages of dvc.yaml: what each waits for, where it may run, and which of them a run is about."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo

from r1pipe.errors import DataError


class Node(NamedTuple):
    """A stage of dvc.yaml."""

    upstream: tuple[str, ...]
    ancestors: tuple[str, ...]
    """All that it depends on, directly or not, in order."""

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
        stages = {stage.name: stage for stage in graph}
        upstream = {name: sorted(each.name for each in graph.successors(stage)) for name, stage in stages.items()}
        ordered: Dag = {}
        while len(ordered) < len(stages):
            for name in sorted(s for s in stages if s not in ordered and all(u in ordered for u in upstream[s])):
                before = {each for direct in upstream[name] for each in (direct, *ordered[direct].ancestors)}
                ordered[name] = Node(
                    tuple(upstream[name]),
                    tuple(each for each in ordered if each in before),
                    stages[name].meta["worker"],
                    tuple(Path(out.def_path) for out in stages[name].outs if out.metric),
                )
    return ordered


def choose(dag: Mapping[str, Node], *, start_from: str | None = None, stop_after: str | None = None) -> list[str]:
    """The stages from one on, up to another, in order; whatever is beside their path is left out.

    Raises:
        DataError: if there is no such stage, or no way from the one to the other.
    """
    require(dag, [stage for stage in (start_from, stop_after) if stage])
    first = {name for name in dag if start_from in (None, name, *dag[name].ancestors)}
    last = {stop_after, *dag[stop_after].ancestors} if stop_after else set(dag)
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
