"""Flows: which stages, in which checkout, from which run cache, ended by what; through real git, DVC and processes."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from tiny_flows import ROOT, commit, git, write_repository

from flows.checkout import Source, check_out, held, own_clone, pull, push, read_lock, settle, write_lock
from flows.commands import dvc, execute
from flows.dag import choose, read_dag
from r1pipe.errors import DataError, GateError
from r1pipe.stages.work import in_progress


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


ALL = ["collect", "prepare", "sft", "grpo", "report"]


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        pytest.param({}, ALL, id="everything"),
        pytest.param({"start_from": "sft"}, ["sft", "grpo", "report"], id="from a stage"),
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


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_are_heard_as_they_come(tmp_path):
    heard: list[tuple[float, str]] = []
    code = "import time; print('one', flush=True); time.sleep(1); print('two')"
    execute(python(code), tmp_path, lambda line: heard.append((time.monotonic(), line)))
    (first, one), (second, two) = heard
    assert (one, two) == ("one", "two")
    assert second - first > 0.5


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        pytest.param(
            [
                "Expected 3 rooms, found 2.",
                "ERROR: failed to reproduce 'sft': failed to run: python -m r1pipe.stages.sft, exited with 1",
            ],
            "Expected 3 rooms, found 2.",
            id="the stage's, not DVC's",
        ),
        pytest.param(
            ["ERROR: unexpected error - no remote", "", "Having any troubles? Hit us up at https://dvc.org/support"],
            "unexpected error - no remote",
            id="DVC's own",
        ),
        pytest.param([], "to end with status 3, found 3|found 3", id="none"),
    ],
)
def test_a_failed_command_says_its_last_sentence(tmp_path, lines, sentence):
    code = f"import sys; print(*{lines!r}, sep='\\n'); sys.exit(3)"
    with pytest.raises(GateError, match=sentence):
        execute(python(code), tmp_path, str)


def test_a_command_that_hangs_is_stopped_with_all_that_it_started(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); import time; time.sleep(600)"
    heard: list[str] = []
    with pytest.raises(GateError, match=r"to end within 2 s, found it running; it was stopped\."):
        execute(python(code), tmp_path, heard.append, timeout_s=2.0)
    state = Path(f"/proc/{heard[0]}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


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
        assert settle(dag, ["prepare"], from_remote=True) == ["prepare", "sft", "grpo", "report"]
        assert settle(dag, [], from_remote=True) == ["grpo", "report"]
        assert read_lock(root, ALL) == made
        assert json.loads(Path("reports/metrics/sft.json").read_text()) == {"loss": 1 / 700}
        check_out(root, source, [], str)
        assert settle(dag, [], from_remote=True) == ["sft", "grpo", "report"]
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


@pytest.mark.slow
def test_a_run_here_fails_with_the_stage_s_sentence_and_continues_from_it(tmp_path):
    folder = write_repository(tmp_path / "repository")
    environ = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_LOGGING_TO_API_ENABLED": "false"}

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "flows.reproduce", *arguments]
        ended = subprocess.run(
            command, cwd=folder, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return ended.returncode, ended.stdout

    status, said = run("--start-from", "sft")
    assert status == 1
    assert "Expected what sft and later stages read to be up to date, found collect, prepare stale." in said
    status, said = run("-S", "sft.max_steps=13")
    assert status == 1
    assert "To run: collect, prepare, sft, grpo, report." in said
    assert "\nExpected another number of steps than 13, found 13 in sft.max_steps.\n" in said
    assert list(read_lock(folder, ALL)) == ["collect", "prepare"]
    status, said = run("-S", "sft.max_steps=14", "--experiment", "trial")
    assert (status, "To run: sft, grpo, report." in said) == (0, True), said
    assert "sft: step 20 of 20" in said
    assert list(read_lock(folder, ALL)) == ALL
    assert git(folder, "for-each-ref", "refs/exps").endswith("/trial")
    status, said = run("--force", "report")
    assert (status, "To run: report." in said) == (0, True), said


def test_every_deployment_names_a_flow_and_a_pool_that_the_server_makes():
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        file, name = deployment["entrypoint"].split(":")
        assert f"def {name}(" in (ROOT / file).read_text()
        assert deployment["work_pool"]["name"] in ("r1pipe-cpu", "r1pipe-gpu")


def test_the_job_template_declares_what_it_fills_in():
    template = json.loads((ROOT / "deploy/kubernetes-job.json").read_text())
    filled = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert filled == set(template["variables"]["properties"])
