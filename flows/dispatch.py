"""A stage given to a worker of its pool, awaited, and its result taken from DVC's remote."""

import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from prefect.states import Cancelling

from flows.checkout import read_lock, settle
from flows.dag import Node
from flows.stage import SETTINGS
from r1pipe.errors import GateError

POLL_S = 2.0

_settling = ThreadLock()

_started: set[UUID] = set()
"""Runs of stages that are being awaited."""


def taken(stage: str, node: Node) -> bool:
    """Whether the stage could be taken from the run cache; DVC writes dvc.lock for one at a time."""
    with _settling:
        return not settle({stage: node}, [], from_remote=True)


def run_on_worker(stage: str, node: Node, parameters: Mapping[str, Any]) -> None:
    """Have a worker of the stage's pool run it; one that is lost is followed by another, which goes on with its work.

    Raises:
        GateError: if the stage failed, with its sentence; or too many workers were lost.
    """
    given = {"name": stage, "ancestors": read_lock(Path(), node.ancestors), **parameters}
    for takeover in range(SETTINGS.takeovers + 1):
        if takeover:
            get_run_logger().warning("The worker of %s was lost; another takes the stage up.", stage)
        # The key finds the run again where the server was away just after it had been started.
        key = f"{flow_run.id}-{flow_run.run_count}-{stage}-{takeover}"
        started = run_deployment(
            f"stage/{node.worker}", parameters=given, flow_run_name=stage, timeout=0, idempotency_key=key
        )
        ended = _awaited(cast(FlowRun, started).id)  # not to be awaited, outside of async code
        if ended.is_completed():
            return
        if not ended.is_crashed():
            raise GateError(_sentence(stage, ended))
    raise GateError(f"Expected a worker that ends stage {stage}, found {SETTINGS.takeovers + 1} lost.")


def _awaited(run: UUID) -> State[Any]:
    """How it ended; one client throughout, because a new one does not wait for a server that restarts."""
    _started.add(run)
    try:
        with get_client(sync_client=True) as client:
            while not ((state := client.read_flow_run(run).state) and state.is_final()):
                time.sleep(POLL_S)
            return state
    finally:
        _started.discard(run)


def cancel_started() -> None:
    """Cancel what workers are running for a flow that is cancelled itself; Prefect leaves them running."""
    for run in list(_started):
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelling())


def _sentence(stage: str, state: State[Any]) -> str:
    found = (state.message or state.name or "").split("Error: ", 1)[-1]
    return f"{stage}: {found}"


def server_was_away(_: Any, __: Any, state: State[Any]) -> bool:
    """Whether to try again: a new client, other than one that has been connected, gives up at once."""
    return isinstance(state.result(raise_on_failure=False), httpx.TransportError)
