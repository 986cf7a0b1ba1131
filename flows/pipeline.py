"""A run of the pipeline: what is up to date is skipped, the rest follows dvc.yaml, here or on workers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.artifacts import show_metrics, show_report
from flows.checkout import Source, check_out, compose, held, own_clone, read_lock, settle, write_lock
from flows.commands import dvc, execute, stop_all
from flows.dag import Dag, Node, choose, read_dag, require
from flows.dispatch import cancel_started, run_on_worker, server_was_away, taken
from flows.stage import RETRIES, SETTINGS, WAIT_S, bring_up_to_date
from flows.version import tag_run
from r1pipe.errors import DataError, GateError
from r1pipe.params import Params


class Wish(NamedTuple):
    """What a run is to do; the parameters of the flow `reproduce`."""

    overrides: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    start_from: str | None = None
    stop_after: str | None = None
    experiment: str | None = None


@contextmanager
def opened(source: Source | None, overrides: Sequence[str]) -> Iterator[None]:
    """The working directory, or a clone of the commit as one, with its parameters; no other run is in it.

    Raises:
        GateError: if another run stays in the working directory for too long.
    """
    if source is not None:
        with own_clone():
            fetch_commit(source, overrides)
            yield
        return
    with held(Path(), f"flow run {flow_run.name}", wait_s=SETTINGS.checkout_wait_s):
        compose(Path(), overrides, get_run_logger().info)
        yield


@task(task_run_name="check out", retries=RETRIES, retry_delay_seconds=WAIT_S)
def fetch_commit(source: Source, overrides: Sequence[str]) -> None:
    """The commit, with its parameters."""
    check_out(Path(), source, overrides, get_run_logger().info)


def follow(wish: Wish, source: Source | None) -> None:
    """Bring the working directory up to date.

    Raises:
        DataError: if the wish names stages that there are not, or that it leaves out.
        GateError: if a stage failed, with its sentence; or one before the first is not up to date.
    """
    dag = read_dag()
    chosen = choose(dag, start_from=wish.start_from, stop_after=wish.stop_after)
    _check(dag, chosen, wish)
    if source and wish.force:
        write_lock(Path(), read_lock(Path(), [stage for stage in dag if stage not in wish.force]))
    left = find_left(_needed(dag, chosen), wish.force, from_remote=source is not None)
    if before := [stage for stage in left if stage not in chosen]:
        raise GateError(
            f"Expected what {chosen[0]} and later stages read to be up to date, found {', '.join(before)} stale."
        )
    tag_run([f"experiment:{wish.experiment}"] if wish.experiment else [])
    try:
        _run_all({stage: dag[stage] for stage in chosen}, left, wish, source)
    finally:
        stop_all()
        cancel_started()
        tag_run([])
    _finish(chosen, wish, source)


def _check(dag: Dag, chosen: Sequence[str], wish: Wish) -> None:
    require(dag, list(wish.force))
    if beside := [stage for stage in wish.force if stage not in chosen]:
        raise DataError(f"Expected forced stages among {', '.join(chosen)}, found {', '.join(beside)}.")


def _needed(dag: Dag, chosen: Sequence[str]) -> Dag:
    """These stages and all that they read."""
    needed = set(chosen).union(*(dag[stage].ancestors for stage in chosen))
    return {stage: node for stage, node in dag.items() if stage in needed}


@task(task_run_name="what is up to date", retries=RETRIES, retry_delay_seconds=WAIT_S)
def find_left(dag: Dag, forced: Sequence[str], *, from_remote: bool) -> list[str]:
    """The stages that the run cache, here or in the remote, does not hold."""
    left = settle(dag, forced, from_remote=from_remote)
    get_run_logger().info("To run: %s.", ", ".join(left) or "nothing, everything is up to date")
    return left


def _run_all(dag: Dag, left: Sequence[str], wish: Wish, source: Source | None) -> None:
    runs: dict[str, PrefectFuture[Any]] = {}
    for stage, node in dag.items():
        # The tag lets an operator limit the GPU stages of all flows together.
        tagged = bring.with_options(tags=[f"worker:{node.worker}"] if stage in left else [])
        before = [runs[name] for name in node.upstream if name in runs]
        runs[stage] = tagged.submit(stage, node, stage in left, wish, source, return_state=False, wait_for=before)
    wait(list(runs.values()))
    for run in runs.values():
        run.result()


@task(task_run_name="{stage}", retries=RETRIES, retry_delay_seconds=WAIT_S, retry_condition_fn=server_was_away)
def bring(stage: str, node: Node, stale: bool, wish: Wish, source: Source | None) -> State[None] | None:
    """One stage: skipped, run here, or run by a worker."""
    if not stale:
        return Completed(name="Skipped", message="It was up to date.")
    force = stage in wish.force
    if source is None:
        bring_up_to_date(stage, node.worker, node.metrics, force=force, bus=False)
        return None
    if not force and taken(stage, node):
        return Completed(name="Skipped", message="The run cache holds it.")
    run_on_worker(stage, node, {"overrides": wish.overrides, "source": source, "force": force})
    if not taken(stage, node):
        raise GateError(
            f"Expected stage {stage} in the run cache of {source.remote} after its worker, found it missing."
        )
    show_metrics(stage, node.metrics)
    return None


def _finish(chosen: Sequence[str], wish: Wish, source: Source | None) -> None:
    """Show the report, and keep the experiment."""
    hear = get_run_logger().info
    if "report" in chosen:
        show_report(Params.load().paths.report)
    if wish.experiment:
        execute(dvc("exp", "save", "--force", "--name", wish.experiment), Path(), hear)
        if source:
            execute(dvc("exp", "push", "--no-cache", source.repository, wish.experiment), Path(), hear)
