"""The pipeline as a flow: every stage after those that it reads, here or on workers.

    python -m flows.reproduce --stop-after validate     in this checkout

Deployed, a run works on a commit: it sends each stage to the pool `r1pipe-cpu` or `r1pipe-gpu`, and takes the results
from DVC's remote. What is up to date, here or in the run cache, is skipped; so a run that failed, started again,
continues from the stage that failed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Annotated, Any, NamedTuple, cast
from uuid import UUID

import httpx
import typer
from prefect import flow, get_run_logger, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.artifacts import show_metrics, show_report
from flows.checkout import Source, check_out, compose, held, own_clone, read_lock, settle, write_lock
from flows.commands import dvc, execute, stop_all
from flows.dag import Dag, Node, choose, read_dag, require
from flows.stage import RETRIES, SETTINGS, WAIT_S, bring_up_to_date
from flows.version import tag_run
from r1pipe.errors import DataError, GateError, R1Error
from r1pipe.params import Params

CONCURRENT_STAGES = 2
"""Independent stages that run side by side; each has `base.threads` threads of its own."""

POLL_S = 2.0

_settling = ThreadLock()


class Wish(NamedTuple):
    """What a run is to do; the parameters of `reproduce`."""

    overrides: tuple[str, ...] = ()
    force: tuple[str, ...] = ()
    start_from: str | None = None
    stop_after: str | None = None
    experiment: str | None = None


@flow(name="reproduce", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def reproduce(
    overrides: tuple[str, ...] = (),
    force: tuple[str, ...] = (),
    start_from: str | None = None,
    stop_after: str | None = None,
    experiment: str | None = None,
    source: Source | None = None,
) -> None:
    """Bring the pipeline up to date; a failed stage stops what depends on it, and the run.

    Args:
        overrides: of the parameters, as Hydra writes them: `scale=small`, `sft.max_steps=1200`.
        force: stages to run though they are up to date.
        start_from: a stage; those before it have to be up to date.
        stop_after: a stage; those that read it are left.
        experiment: a name under which to keep the results as a DVC experiment.
        source: the commit that workers work on; null runs the stages here, in the working directory.
    """
    wish = Wish(overrides, force, start_from, stop_after, experiment)
    with opened(source, wish.overrides):
        follow(wish, source)


@flow(name="synthesize-more", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def synthesize_more(rooms: int, overrides: tuple[str, ...] = (), source: Source | None = None) -> None:
    """Chains of thought for more rooms, as far as the gate of `validate`; what was asked and paid is not asked again.

    Args:
        rooms: of the train split.
        overrides: of other parameters; `synthesize.teacher=gemini`, say, or `synthesize.gemini.budget=20`.
        source: as in `reproduce`.
    """
    wish = Wish(overrides=(f"collect.rooms.train={rooms}", *overrides), stop_after="validate")
    with opened(source, wish.overrides):
        follow(wish, source)


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def retrain(overrides: tuple[str, ...] = (), experiment: str | None = None, source: Source | None = None) -> None:
    """The model anew, from `sft` on, on data that are there.

    Args:
        overrides: of the parameters.
        experiment: as in `reproduce`.
        source: as in `reproduce`.
    """
    wish = Wish(overrides=overrides, force=("sft",), start_from="sft", experiment=experiment)
    with opened(source, wish.overrides):
        follow(wish, source)


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
        tag_run([])
    finish(chosen, wish, source)


def _check(dag: Dag, chosen: Sequence[str], wish: Wish) -> None:
    require(dag, list(wish.force))
    if beside := [stage for stage in wish.force if stage not in chosen]:
        raise DataError(f"Expected forced stages among {', '.join(chosen)}, found {', '.join(beside)}.")


def _needed(dag: Dag, chosen: Sequence[str]) -> Dag:
    """These stages and all that they read."""
    needed = set(chosen)
    for stage in reversed(dag):
        if stage in needed:
            needed.update(dag[stage].upstream)
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


def _server_was_away(_: Any, __: Any, state: State[Any]) -> bool:
    """A new client, other than one that has been connected, gives up at once."""
    return isinstance(state.result(raise_on_failure=False), httpx.TransportError)


@task(task_run_name="{stage}", retries=RETRIES, retry_delay_seconds=WAIT_S, retry_condition_fn=_server_was_away)
def bring(stage: str, node: Node, stale: bool, wish: Wish, source: Source | None) -> State[None] | None:
    """One stage: skipped, run here, or run by a worker."""
    if not stale:
        return Completed(name="Skipped", message="It was up to date.")
    force = stage in wish.force
    if source is None:
        bring_up_to_date(stage, node.worker, node.metrics, force=force, bus=False)
        return None
    if not force and _taken(stage, node):
        return Completed(name="Skipped", message="The run cache holds it.")
    _run_on_worker(stage, node, {"overrides": wish.overrides, "source": source, "force": force})
    if not _taken(stage, node):
        raise GateError(
            f"Expected stage {stage} in the run cache of {source.remote} after its worker, found it missing."
        )
    show_metrics(stage, node.metrics)
    return None


def _taken(stage: str, node: Node) -> bool:
    """Whether the stage could be taken from the run cache; DVC writes dvc.lock for one at a time."""
    with _settling:
        return not settle({stage: node}, [], from_remote=True)


def _run_on_worker(stage: str, node: Node, parameters: Mapping[str, Any]) -> None:
    """Have a worker of the stage's pool run it; one that is lost is followed by another, which goes on with its work.

    Raises:
        GateError: if the stage failed, with its sentence; or too many workers were lost.
    """
    given = {"name": stage, "upstream": read_lock(Path(), node.upstream), **parameters}
    for takeover in range(SETTINGS.takeovers + 1):
        if takeover:
            get_run_logger().warning("The worker of %s was lost; another takes the stage up.", stage)
        # The key finds the run again where the server was away just after it had been started.
        key = f"{flow_run.id}-{flow_run.run_count}-{stage}-{takeover}"
        started = run_deployment(
            f"stage/{node.worker}", parameters=given, flow_run_name=stage, timeout=0, idempotency_key=key
        )
        with get_client(sync_client=True) as client:
            ended = _awaited(client, cast(FlowRun, started).id)  # not to be awaited, outside of async code
        if ended.is_completed():
            return
        if not ended.is_crashed():
            raise GateError(_sentence(stage, ended))
    raise GateError(f"Expected a worker that ends stage {stage}, found {SETTINGS.takeovers + 1} lost.")


def _awaited(client: SyncPrefectClient, run: UUID) -> State[Any]:
    """How it ended; one client throughout, because a new one does not wait for a server that restarts."""
    while True:
        state = client.read_flow_run(run).state
        if state and state.is_final():
            return state
        time.sleep(POLL_S)


def _sentence(stage: str, state: State[Any]) -> str:
    found = (state.message or state.name or "").split("Error: ", 1)[-1]
    return f"{stage}: {found}"


def finish(chosen: Sequence[str], wish: Wish, source: Source | None) -> None:
    """Show the report, and keep the experiment."""
    hear = get_run_logger().info
    if "report" in chosen:
        show_report(Params.load().paths.report)
    if wish.experiment:
        execute(dvc("exp", "save", "--force", "--name", wish.experiment), Path(), hear)
        if source:
            execute(dvc("exp", "push", "--no-cache", source.repository, wish.experiment), Path(), hear)


def main(
    override: Annotated[list[str] | None, typer.Option("-S", help="Of the parameters, as `dvc exp run -S`.")] = None,
    force: Annotated[list[str] | None, typer.Option(help="A stage to run though it is up to date.")] = None,
    start_from: Annotated[str | None, typer.Option(help="A stage.")] = None,
    stop_after: Annotated[str | None, typer.Option(help="A stage.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Keep the results as a DVC experiment of this name.")] = None,
) -> None:
    """Bring the pipeline up to date in this checkout, as a Prefect flow."""
    try:
        reproduce(tuple(override or ()), tuple(force or ()), start_from, stop_after, experiment)
    except R1Error as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
