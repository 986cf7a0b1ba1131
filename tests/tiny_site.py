"""A Prefect server and workers as processes, a folder as the remote between them, and what a person asks of them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from flows.commands import descendants

PATIENCE_S = 3600.0
BIN = Path(sys.executable).parent


class Site(NamedTuple):
    """A server, and what its workers share."""

    folder: Path
    repository: Path
    environ: dict[str, str]

    @classmethod
    def at(cls, folder: Path, **environ: str) -> "Site":
        """A site whose server listens on a free port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "R1PIPE_REMOTE": str(folder / "remote"),
            "R1PIPE_WORK": str(folder / "work"),
            "PYTHONPATH": str(folder / "repository"),
        }
        return cls(folder, folder / "repository", os.environ | own | environ)

    @property
    def address(self) -> str:
        return self.environ["PREFECT_API_URL"]

    def start(self, *command: str, cwd: Path, **environ: str) -> "subprocess.Popen[bytes]":
        """A process with its log in the site's folder, in a session of its own."""
        with (self.folder / f"{'-'.join(command[-1:])}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environ | environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_server(self) -> "subprocess.Popen[bytes]":
        return self.start(sys.executable, "-m", "flows.server", cwd=self.repository)

    def start_worker(self, pool: str, name: str) -> "subprocess.Popen[bytes]":
        clones = self.folder / name
        clones.mkdir(exist_ok=True)
        options = ["--type", "process", "--pool", pool, "--name", name]
        return self.start(str(BIN / "prefect"), "worker", "start", *options, cwd=clones, R1PIPE_CHECKOUTS=str(clones))

    def ask(self, method: str, path: str, given: Any = None) -> Any:
        """What the server answers; one that is busy or restarts is asked again."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = httpx.request(method, f"{self.address}/{path}", json=given, timeout=60)
            except httpx.TransportError:
                assert time.monotonic() < deadline
            else:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return answer.raise_for_status().json() if answer.content else None
            time.sleep(1.0)

    @contextmanager
    def served(self) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """With a server that has everything deployed; whoever restarts it changes the list."""
        started = [self.start_server()]
        try:
            log = self.folder / "flows.server.log"
            await_true(lambda: "Everything is deployed" in log.read_text() or started[0].poll() is not None)
            assert started[0].poll() is None, log.read_text()
            yield started
        finally:
            for server in started:
                stop(server)

    @contextmanager
    def staffed(self) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
        """With a worker of each pool."""
        started = {kind: self.start_worker(f"r1pipe-{kind}", f"{kind}-1") for kind in ("cpu", "gpu")}
        try:
            yield started
        finally:
            for process in started.values():
                kill_tree(process)

    def begin(self, flow: str, **parameters: Any) -> str:
        """Start a flow's run as a person does; its id."""
        given = [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
        command = [str(BIN / "prefect"), "deployment", "run", f"{flow}/r1pipe", *given]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=self.environ).stdout
        return re.findall(r"UUID: ([0-9a-f-]{36})", said)[0]

    def run(self, flow: str, **parameters: Any) -> dict[str, Any]:
        """A flow's run, once it has ended."""
        return self.await_end(self.begin(flow, **parameters))

    def await_end(self, run: str) -> dict[str, Any]:
        """The run, once it has ended."""
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.ask("GET", f"flow_runs/{run}"))
            return found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        await_true(ended)
        return found

    def stages(self, run: str) -> dict[str, str]:
        """How each stage's task ended."""
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "limit": 200}
        return {row["name"]: row["state"]["name"] for row in self.ask("POST", "task_runs/filter", wanted)}

    def artifact(self, key: str) -> str:
        """What the newest of this key shows."""
        return str(self.ask("GET", f"artifacts/{key}/latest")["data"])

    def runs_of(self, flow: str) -> list[dict[str, Any]]:
        wanted = {"flows": {"name": {"any_": [flow]}}, "limit": 200}
        return list(self.ask("POST", "flow_runs/filter", wanted))


def await_true(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1.0)


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """What a machine that loses power does: the worker, its runs and their stages are gone at once."""
    for pid in [process.pid, *descendants(process.pid)]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    server.wait(60)
