"""A Prefect server on SQLite with everything deployed, and what each deployment is told of this checkout.

    python -m flows.server           the server, with everything deployed: `make server`
    python -m flows.server deploy    deploy to the server that PREFECT_API_URL names, and end

R1PIPE_REPOSITORY (this checkout) and R1PIPE_REMOTE (a folder in ~/.cache/r1pipe) are what workers clone and where they
exchange data: on several machines, addresses that all of them reach. R1PIPE_WEBHOOK is posted to when a run fails; set to
nothing, nobody is told any more; not set, what the server knows stays.
"""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import typer
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.checkout import home
from flows.version import commit, tags, version
from r1pipe.errors import DataError, GateError
from r1pipe.params import Params
from r1pipe.params.flows import Flows

START_S = 600.0
REPORT = """{"text": {{
    (flow.name ~ " " ~ flow_run.name ~ " " ~ flow_run.state.name ~ ": " ~ flow_run.state.message ~ " " ~ flow_run | ui_url) | tojson
}}}"""
"""What a webhook is sent, Slack's form, which others read too; a template of Prefect's."""
REPORTED = "failures are reported"
"""The automation that posts to the webhook."""

ENDED = ["Completed", "Failed", "Cancelled", "Crashed"]


def serve() -> None:
    """Run the server until it is interrupted."""
    address = PREFECT_API_URL.value() or "http://127.0.0.1:4200/api"
    os.environ["PREFECT_API_URL"] = address
    where = urlsplit(address)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # through `finally` below
    options = ["--host", where.hostname or "127.0.0.1", "--port", str(where.port or 4200)]
    with subprocess.Popen([sys.executable, "-m", "prefect", "server", "start", *options]) as server:
        try:
            _await(address, server)
            subprocess.run([sys.executable, "-m", "flows.server", "deploy"], check=True)
            typer.echo(f"Everything is deployed: {address.removesuffix('/api')}")
            server.wait()
        except KeyboardInterrupt:
            typer.echo("Stopping the server.")
        finally:
            server.terminate()


def _await(address: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{address}/health", timeout=5.0).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise GateError(f"Expected Prefect's server to answer at {address} within {START_S:g} s, found that it did not.")


def deploy() -> None:
    """Pools, limits, automations, then what prefect.yaml says.

    Raises:
        DataError: if the repository's address has a password in it, which every run would show.
    """
    settings = Params.load().flows
    values = deployed()
    with get_client(sync_client=True) as client:
        make_pools(client)
        client.create_concurrency_limit("worker:gpu", settings.gpu_stages)
        make_automations(client, settings, os.environ.get("R1PIPE_WEBHOOK"))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    subprocess.run(command, check=True, env=os.environ | values)


def deployed() -> dict[str, str]:
    """What prefect.yaml is filled in with."""
    repository = os.environ.get("R1PIPE_REPOSITORY", str(Path.cwd()))
    if urlsplit(repository).password:
        raise DataError("Expected R1PIPE_REPOSITORY without a password, found one; give it to git's credential helper.")
    if version().endswith("+dirty"):
        typer.echo(f"Tracked files differ from commit {commit()[:8]}; workers run the commit, not these.", err=True)
    tag_commit, params, data = tags()
    return {
        "R1PIPE_REPOSITORY": repository,
        "R1PIPE_REMOTE": os.environ.get("R1PIPE_REMOTE", str(home() / "remote")),
        "R1PIPE_COMMIT": commit(),
        "R1PIPE_VERSION": version(),
        "R1PIPE_TAG_COMMIT": tag_commit,
        "R1PIPE_TAG_PARAMS": params,
        "R1PIPE_TAG_DATA": data,
    }


def make_pools(client: SyncPrefectClient) -> None:
    """`r1pipe-cpu` and `r1pipe-gpu`, of processes; a pool that is there, of Kubernetes say, stays as it is."""
    for kind in ("cpu", "gpu"):
        name = f"r1pipe-{kind}"
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", description=f"Stages whose worker is {kind}")
            )


def make_automations(client: SyncPrefectClient, settings: Flows, webhook: str | None) -> None:
    """A run that falls silent counts as crashed; one that fails is reported: to `webhook`, to nobody if it is empty."""
    lost = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in ENDED)},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=settings.lost_after_s),
    )
    message = f"No heartbeat for {settings.lost_after_s:g} s: its worker is lost."
    crash = ChangeFlowRunState(name="Crashed", state=StateType.CRASHED, message=message)
    _make(client, AutomationCore(name="a lost worker's runs count as crashed", trigger=lost, actions=[crash]))
    if webhook:
        headers = {"Content-Type": "application/json"}
        block = Webhook(method="POST", url=webhook, headers=headers).save("r1pipe-failures", overwrite=True)
        failed = EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            # A stage that fails fails the flow that started it: one failure is told once.
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": "!stage"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )
        call = CallWebhook(block_document_id=block, payload=REPORT)
        _make(client, AutomationCore(name=REPORTED, trigger=failed, actions=[call]))
    elif webhook == "":
        for known in client.read_automations_by_name(REPORTED):
            client.delete_automation(known.id)


def _make(client: SyncPrefectClient, automation: AutomationCore) -> None:
    """Create it, or bring the one of this name to this state."""
    known = client.read_automations_by_name(automation.name)
    if known:
        client.update_automation(known[0].id, automation)
    else:
        client.create_automation(automation)


if __name__ == "__main__":
    deploy() if sys.argv[1:] == ["deploy"] else serve()
