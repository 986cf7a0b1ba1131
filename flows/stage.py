"""A stage as a task, and as a flow of its own on a worker of the pool that its `meta` names."""

from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger, task

import flows
from flows.artifacts import Progress, show_metrics
from flows.checkout import Lock, Source, check_out, own_clone, pull, push, read_lock, shared_work, write_lock
from flows.commands import dvc, execute
from flows.dag import read_dag
from r1pipe.params import Params
from r1pipe.params.flows import Flows

SETTINGS: Flows = Params.load(Path(flows.__file__).parents[1] / "params.yaml").flows
"""Of the code of the flows, which may be a later commit than the one that a run works on."""

RETRIES, WAIT_S = SETTINGS.network_attempts - 1, SETTINGS.network_wait_s
"""Of what goes over the network, where trying again can help; training is never tried again."""


def bring_up_to_date(stage: str, worker: str, metrics: Sequence[Path], *, force: bool, bus: bool) -> None:
    """Run one stage in the working directory: its lines to the run's log, its metrics to a table.

    Args:
        stage: its name.
        worker: `cpu` or `gpu`, which decides its timeout.
        metrics: its metrics files.
        force: whether to run it though it is up to date.
        bus: whether its result may lie in the remote, and other clones may go on with its work.

    Raises:
        GateError: if it fails, with its own sentence, or does not end in time.
    """
    progress = Progress(stage, get_run_logger())
    command = dvc("repro", "--single-item", *["--force"] * force, *["--pull"] * bus, stage)
    timeout_s = getattr(SETTINGS.timeout_s, worker)
    execute(command, Path(), progress.hear, timeout_s=timeout_s, environ=shared_work() if bus else {})
    progress.show(100.0)
    show_metrics(stage, metrics)


@task(task_run_name="fetch", retries=RETRIES, retry_delay_seconds=WAIT_S)
def fetch(source: Source, overrides: Sequence[str], lock: Lock) -> None:
    """The commit, its parameters, and what the stage reads."""
    hear = get_run_logger().info
    check_out(Path(), source, overrides, hear)
    write_lock(Path(), lock)
    pull(Path(), list(lock), hear)


@task(task_run_name="run {name}")
def run(name: str, *, force: bool) -> None:
    """The stage itself."""
    node = read_dag()[name]
    bring_up_to_date(name, node.worker, node.metrics, force=force, bus=True)


@task(task_run_name="push", retries=RETRIES, retry_delay_seconds=WAIT_S)
def send_back(name: str) -> None:
    """What it made, to the remote."""
    push(Path(), name, get_run_logger().info)


@flow(name="stage", flow_run_name="{name}")
def stage(name: str, source: Source, overrides: list[str], upstream: Lock, force: bool = False) -> None:
    """Bring one stage up to date in a clone of this worker's, and send it to the remote.

    Args:
        name: the stage.
        source: repository, commit and remote.
        overrides: Hydra overrides of the parameters.
        upstream: what dvc.lock says of the stages that it reads.
        force: whether to run it though the run cache holds it.
    """
    with own_clone():
        fetch(source, overrides, upstream)
        run(name, force=force)
        send_back(name)
        get_run_logger().info("Made: %s", read_lock(Path(), [name])[name]["outs"])
