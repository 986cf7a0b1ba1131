"""Flows on a real Prefect server with workers of both pools, each with clones of its own, and a folder as the remote.

Minutes each: every flow run is a process that clones, imports, pulls, runs and pushes. `tests/test_flows.py` runs the same
code without a server.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from tiny_flows import git, write_repository

from flows.checkout import read_lock
from flows.commands import dvc, execute

pytestmark = pytest.mark.slow

PATIENCE_S = 3600.0
BIN = Path(sys.executable).parent


class Site(NamedTuple):
    """A server, and what its workers share."""

    folder: Path
    repository: Path
    environ: dict[str, str]

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

    def begin(self, flow: str, **parameters: Any) -> str:
        """Start a flow's run; its id."""
        known = self.ask("GET", f"deployments/name/{flow}/r1pipe")
        given = {"parameters": known["parameters"] | parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask("POST", f"deployments/{known['id']}/create_flow_run", given)["id"])

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
    tree = [process.pid]
    for pid in tree:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            tree += map(int, task.read_text().split())
    for pid in tree:
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module", params=["light", "tiny"])
def site(request, tmp_path_factory) -> Site:
    """`light` has stages of a second, `tiny` the real ones with few rooms and steps."""
    folder = tmp_path_factory.mktemp(request.param)
    repository = folder / "repository"
    repository.mkdir()
    write_repository(repository, sleep_s=0.5, light=request.param == "light")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "R1PIPE_REMOTE": str(folder / "remote"),
        "R1PIPE_WORK": str(folder / "work"),
        "PYTHONPATH": str(repository),
    }
    return Site(folder, repository, os.environ | environ)


@pytest.fixture
def light(site) -> None:
    if site.folder.name.startswith("tiny"):
        pytest.skip("shown with the light stages")


@pytest.fixture(scope="module")
def servers(site) -> Iterator[list["subprocess.Popen[bytes]"]]:
    started = [site.start_server()]
    log = site.folder / "flows.server.log"
    await_true(lambda: "Everything is deployed" in log.read_text() or started[0].poll() is not None)
    assert started[0].poll() is None, log.read_text()
    yield started
    for server in started:
        stop(server)


@pytest.fixture(scope="module")
def workers(site, servers) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    started = {kind: site.start_worker(f"r1pipe-{kind}", f"{kind}-1") for kind in ("cpu", "gpu")}
    yield started
    for process in started.values():
        kill_tree(process)


@pytest.fixture(scope="module")
def undisturbed(site, tmp_path_factory) -> dict[str, Any]:
    """What plain `dvc repro` writes to dvc.lock."""
    root = tmp_path_factory.mktemp("undisturbed")
    git(root, "clone", "--quiet", str(site.repository), ".")
    execute(dvc("repro"), root, str)
    return outs(root)


def outs(root: Path) -> dict[str, Any]:
    return {name: entry["outs"] for name, entry in read_lock(root, stages_of(root)).items()}


def stages_of(root: Path) -> list[str]:
    return list(yaml.safe_load((root / "dvc.yaml").read_text())["stages"])


def fetched(site: Site, folder: Path) -> dict[str, Any]:
    """What a person gets who clones, and takes the results from the remote."""
    git(site.folder, "clone", "--quiet", str(site.repository), str(folder))
    (folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = bus\n['remote \"bus\"']\n    url = {site.folder}/remote\n"
    )
    heard: list[str] = []
    with chdir(folder):
        execute(dvc("repro", "--pull"), folder, heard.append)
    assert not [line for line in heard if line.startswith("Running stage")]
    return outs(folder)


def test_a_worker_killed_in_sft_is_followed_by_another_that_goes_on_to_the_same_hashes(
    site, workers, undisturbed, tmp_path
):
    run = site.begin("reproduce")
    await_true(lambda: [*site.folder.glob("work/sft/*/checkpoint-10"), *site.folder.glob("work/sft/*/5")])
    kill_tree(workers["gpu"])
    workers["gpu"] = site.start_worker("r1pipe-gpu", "gpu-2")
    found = site.await_end(run)
    assert found["state"]["type"] == "COMPLETED", found["state"]
    assert fetched(site, tmp_path / "clone") == undisturbed
    assert "oing on from" in (site.folder / "gpu-2.log").read_text()
    sft = [row["state"]["type"] for row in site.runs_of("stage") if row["name"] == "sft"]
    assert sorted(sft) == ["COMPLETED", "CRASHED"]


def test_a_run_used_both_pools_and_a_second_skips_every_stage_through_the_run_cache(site, workers):
    first = site.await_end(site.begin("reproduce"))  # nothing to do where the test above has run
    assert first["state"]["type"] == "COMPLETED", first["state"]
    pools = {row["name"]: row["work_pool_name"] for row in site.runs_of("stage")}
    declared = yaml.safe_load((site.repository / "dvc.yaml").read_text())["stages"]
    assert pools == {name: f"r1pipe-{stage['meta']['worker']}" for name, stage in declared.items()}
    before = len(site.runs_of("stage"))
    for clone in (site.folder / "cpu-1").glob("clone-*/dvc.lock"):
        clone.unlink()  # the parent's clone has to ask the run cache
    second = site.await_end(site.begin("reproduce", experiment="trial"))
    ended = site.stages(second["id"])
    assert {ended[stage] for stage in declared} == {"Skipped"}
    assert len(site.runs_of("stage")) == before
    assert second["deployment_version"] == git(site.repository, "rev-parse", "HEAD")
    assert {tag.split(":")[0] for tag in second["tags"]} >= {"commit", "params", "data"}
    assert "data:none" not in second["tags"]
    assert git(site.repository, "for-each-ref", "refs/exps").endswith("/trial")


def test_a_failed_stage_says_its_own_sentence_and_the_next_run_continues_from_it(site, workers, light):
    found = site.await_end(site.begin("reproduce", overrides=["sft.max_steps=13"]))
    assert found["state"]["type"] == "FAILED"
    assert "sft: Expected another number of steps than 13, found 13 in sft.max_steps." in found["state"]["message"]
    ended = site.stages(found["id"])
    assert (ended["collect"], ended["sft"], ended["grpo"]) == ("Skipped", "Failed", "NotReady")


def test_a_run_outlives_a_restart_of_the_server(site, servers, workers, light):
    run = site.begin("reproduce", overrides=["sft.max_steps=21"])
    await_true(lambda: [*site.folder.glob("work/sft/*/5")])
    stop(servers.pop())
    time.sleep(10)
    servers.append(site.start_server())
    assert site.await_end(run)["state"]["type"] == "COMPLETED"


def test_an_unreachable_remote_is_tried_again_and_then_said(site, workers, light):
    (site.folder / "no-folder").touch()
    source = {"repository": str(site.repository), "commit": "main", "remote": str(site.folder / "no-folder/remote")}
    found = site.await_end(site.begin("reproduce", source=source, overrides=["sft.max_steps=22"]))
    assert found["state"]["type"] == "FAILED"
    assert "no-folder" in found["state"]["message"]


def test_a_schedule_of_a_minute_runs_twice_by_itself(site, workers, light):
    known = site.ask("GET", "deployments/name/reproduce/r1pipe")
    schedules = f"deployments/{known['id']}/schedules"
    every_minute = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
    made = site.ask("POST", schedules, [every_minute])

    def ran_twice() -> bool:
        rows = [row for row in site.runs_of("reproduce") if row["auto_scheduled"]]
        return [row["state"]["type"] for row in rows].count("COMPLETED") >= 2

    await_true(ran_twice)
    site.ask("DELETE", f"{schedules}/{made[0]['id']}")


def stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    server.wait(60)
