"""Flows: which stages, in which checkout, from which run cache, ended by what; through real git, DVC and processes."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tiny_flows import commit, git, write_repository

from flows.checkout import Source, check_out, held, own_clone, pull, push, read_lock, settle, write_lock
from flows.commands import dvc, execute
from flows.dag import choose, read_dag
from r1pipe.errors import DataError, GateError
from r1pipe.stages.work import deliver, in_progress


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def dag(repository):
    with chdir(repository):
        return read_dag()


@pytest.fixture
def at(monkeypatch, tmp_path):
    """Set where this worker keeps its clones, and where work in progress lies."""

    def set_home(name: str) -> None:
        monkeypatch.setenv("R1PIPE_CHECKOUTS", str(tmp_path / name))
        monkeypatch.setenv("R1PIPE_WORK", str(tmp_path / "work"))

    return set_home


ALL = ["collect", "prepare", "sft", "grpo", "report", "evaluate"]


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        pytest.param({}, ALL, id="everything"),
        pytest.param({"start_from": "sft"}, ["sft", "grpo", "report", "evaluate"], id="from a stage"),
        pytest.param({"stop_after": "sft"}, ["collect", "prepare", "sft"], id="up to a stage"),
        pytest.param({"start_from": "sft", "stop_after": "grpo"}, ["sft", "grpo"], id="from one to another"),
        pytest.param({"stop_after": "grpo"}, ["collect", "prepare", "sft", "grpo"], id="what is beside is left out"),
    ],
)
def test_a_run_is_about_the_stages_between_two(dag, given, chosen):
    assert choose(dag, **given) == chosen


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param({"start_from": "stf"}, "among collect, .*, found stf", id="unknown"),
        pytest.param(
            {"start_from": "grpo", "stop_after": "report"}, "report to follow grpo, found no way", id="no way"
        ),
    ],
)
def test_a_wrong_stage_is_refused_with_those_there_are(dag, given, sentence):
    with pytest.raises(DataError, match=sentence):
        choose(dag, **given)


def test_a_second_run_on_a_checkout_waits_or_is_refused_with_the_name_of_the_first(tmp_path):
    with (
        held(tmp_path, "flow run calm-otter", wait_s=0),
        pytest.raises(GateError, match=f"found flow run calm-otter, process {os.getpid()}"),
        held(tmp_path, "flow run other", wait_s=0),
    ):
        pass
    with ThreadPoolExecutor() as pool:
        with held(tmp_path, "first", wait_s=0):
            second = pool.submit(lambda: held(tmp_path, "second", wait_s=30).__enter__())
            time.sleep(0.5)
            assert not second.done()
        second.result(timeout=10)


@pytest.mark.slow
def test_a_result_travels_through_the_run_cache_to_a_clone_that_never_ran_it(repository, dag, tmp_path, at):
    source = Source(repository=str(repository), commit="main", remote=str(tmp_path / "remote"))
    at("first")
    with own_clone() as root:
        check_out(root, source, ["sft.max_steps=700"], str)
        assert settle(dag, [], from_remote=True) == ALL
        execute(dvc("repro", "--pull", "sft"), root, str)
        for stage in ("collect", "prepare", "sft"):
            push(root, stage, str)
        made = read_lock(root, ALL)
    at("second")
    with own_clone() as root:
        check_out(root, source, ["sft.max_steps=700"], str)
        assert settle(dag, ["prepare"], from_remote=True) == ["prepare", "sft", "grpo", "report", "evaluate"]
        assert settle(dag, [], from_remote=True) == ["grpo", "report", "evaluate"]
        assert read_lock(root, ALL) == made
        assert json.loads(Path("reports/metrics/sft.json").read_text()) == {"loss": 1 / 700}
        check_out(root, source, [], str)
        assert settle(dag, [], from_remote=True) == ["sft", "grpo", "report", "evaluate"]
    at("third")
    with own_clone() as root:
        check_out(root, source, [], str)
        write_lock(root, {"prepare": made["prepare"]})
        pull(root, ["prepare"], str)
        assert Path("data/samples").read_text() == "prepare has run\n"


def test_runs_at_once_have_clones_of_their_own(at):
    at("home")
    with own_clone() as one, own_clone() as other:
        assert (one.name, other.name) == ("clone-0", "clone-1")
        assert Path.cwd() == other
    with own_clone() as again:
        assert again == one


def test_a_clone_follows_the_repository_to_another_commit(repository, tmp_path, at):
    at("home")
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", repository, other], check=True)
    old = git(other, "rev-parse", "HEAD")
    (other / "speed.txt").write_text("1.0")
    commit(other, "slower")
    with own_clone() as root:
        for name, speed in [("main", "1.0"), (old, "0.0"), ("main", "1.0")]:
            check_out(root, Source(repository=str(other), commit=name, remote="/nowhere"), [], str)
            assert (root / "speed.txt").read_text() == speed
        with pytest.raises(GateError, match="no-such"):
            check_out(root, Source(repository=str(other), commit="no-such", remote="/nowhere"), [], str)
        with pytest.raises(GateError, match="'/no-repository' does not appear to be a git repository"):
            check_out(root, Source(repository="/no-repository", commit="main", remote="/nowhere"), [], str)
        git(root, "tag", "r1#production#9")
        check_out(root, Source(repository=str(other), commit="main", remote="/nowhere"), [], str)
        assert not git(root, "tag")


def test_an_interrupted_stage_goes_on_in_another_clone(repository, tmp_path, at):
    at("home")
    lines: list[str] = []
    for name in ("one", "two"):
        subprocess.run(["git", "clone", "--quiet", repository, tmp_path / name], check=True)
        (tmp_path / name / "data").mkdir()
        (tmp_path / name / "data/samples").write_text("the same")
    (tmp_path / "one/speed.txt").write_text("0.3")
    command = [sys.executable, "tiny_flows.py", "sft"]
    with pytest.raises(GateError, match="to end within 3 s"):
        execute(command, tmp_path / "one", lines.append, timeout_s=3.0)
    done = lines[-1].removeprefix("sft: step ")
    execute(command, tmp_path / "two", lines.append)
    assert f"sft: going on from step {done}" in lines
    assert not list((tmp_path / "work/sft").glob("*/"))


def test_a_stage_that_outlives_its_worker_is_waited_for(tmp_path, at):
    at("home")
    enter = lambda: in_progress("sft", [], []).__enter__()  # noqa: E731
    with ThreadPoolExecutor() as pool:
        with in_progress("sft", [], []) as folder:
            (folder / "checkpoint").touch()
            second = pool.submit(enter)
            time.sleep(0.5)
            assert not second.done()
        assert second.result(timeout=10) == folder
    assert list(folder.iterdir()) == []  # the first has finished, and cleared up


def test_work_in_a_folder_on_another_file_system_comes_to_its_place(tmp_path):
    with TemporaryDirectory(dir="/dev/shm") as shared:
        made = Path(shared) / "views"
        made.mkdir()
        (made / "room").write_text("seen")
        if made.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs two file systems")
        deliver(made, tmp_path / "data/views")
    assert {path.name: path.read_text() for path in (tmp_path / "data/views").iterdir()} == {"room": "seen"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["views"]
