"""Flows on a real Prefect server with workers of both pools, each with clones of its own, and a folder as the remote.

Minutes each: every flow run is a process that clones, imports, pulls, runs and pushes. `tests/test_flows.py` runs the same
code without a server.
"""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_flows import ROOT, git, runs, write_repository
from tiny_site import Site, await_true, kill_tree, stop

from flows.checkout import read_lock
from flows.commands import dvc, execute

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["light", "tiny"])
def site(request, tmp_path_factory) -> Site:
    """`light` has stages of a second, `tiny` the real ones with few rooms and steps."""
    folder = tmp_path_factory.mktemp(request.param)
    real = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"] if request.param == "tiny" else ()
    write_repository(folder / "repository", sleep_s=0.5, real=real)
    return Site.at(folder)


@pytest.fixture
def light(site) -> None:
    if site.folder.name.startswith("tiny"):
        pytest.skip("shown with the light stages")


@pytest.fixture(scope="module")
def servers(site) -> Iterator[list["subprocess.Popen[bytes]"]]:
    with site.served() as started:
        yield started


@pytest.fixture(scope="module")
def workers(site, servers) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    with site.staffed() as started:
        yield started


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
    first = site.run("reproduce")  # nothing to do where the test above has run
    assert first["state"]["type"] == "COMPLETED", first["state"]
    pools = {row["name"]: row["work_pool_name"] for row in site.runs_of("stage")}
    declared = yaml.safe_load((site.repository / "dvc.yaml").read_text())["stages"]
    assert pools == {name: f"r1pipe-{stage['meta']['worker']}" for name, stage in declared.items()}
    before = len(site.runs_of("stage"))
    for clone in (site.folder / "cpu-1").glob("clone-*/dvc.lock"):
        clone.unlink()  # the parent's clone has to ask the run cache
    second = site.run("reproduce", experiment="trial")
    ended = site.stages(second["id"])
    assert {ended[stage] for stage in declared} == {"Skipped"}
    assert len(site.runs_of("stage")) == before
    assert second["deployment_version"] == git(site.repository, "rev-parse", "HEAD")
    assert {tag.split(":")[0] for tag in second["tags"]} >= {"commit", "params", "data"}
    assert "data:none" not in second["tags"]
    assert git(site.repository, "for-each-ref", "refs/exps").endswith("/trial")


def test_a_failed_stage_says_its_own_sentence_and_the_next_run_continues_from_it(site, workers, light):
    found = site.run("reproduce", overrides=["sft.max_steps=13"])
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


def test_a_run_that_is_cancelled_takes_its_stage_with_it(site, workers, light):
    run = site.begin("reproduce", overrides=["sft.max_steps=15"])
    log = site.folder / "gpu-2.log" if (site.folder / "gpu-2.log").exists() else site.folder / "gpu-1.log"
    await_true(lambda: "sft: hangs with" in log.read_text())
    (process,) = re.findall(r"sft: hangs with (\d+)", log.read_text())
    assert runs(process)
    site.ask("POST", f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert site.await_end(run)["state"]["type"] == "CANCELLED"
    await_true(lambda: not runs(process))
    stages = [row for row in site.runs_of("stage") if row["parameters"]["overrides"] == ["sft.max_steps=15"]]
    assert {row["name"]: row["state"]["type"] for row in stages}["sft"] == "CANCELLED"


def test_an_unreachable_remote_is_tried_again_and_then_said(site, workers, light):
    (site.folder / "no-folder").touch()
    source = {"repository": str(site.repository), "commit": "main", "remote": str(site.folder / "no-folder/remote")}
    found = site.run("reproduce", source=source, overrides=["sft.max_steps=22"])
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
