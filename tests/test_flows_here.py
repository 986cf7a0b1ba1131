"""`python -m flows.reproduce` in a checkout, without a server: half a minute each."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_flows import STAGES, git, runs, set_params, write_repository
from tiny_site import kill_tree

from flows.checkout import read_lock

pytestmark = pytest.mark.slow


class Here:
    """A repository in which `python -m flows.reproduce` is run, without a server."""

    def __init__(self, folder: Path):
        self.started: list[subprocess.Popen[str]] = []
        self.folder = write_repository(folder / "repository")
        self.environ = os.environ | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
        }

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "flows.reproduce", *arguments]
        outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.started.append(subprocess.Popen(command, cwd=self.folder, env=self.environ, **outputs))
        return self.started[-1]

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate()
        return process.returncode, said


@pytest.fixture
def here(tmp_path) -> Iterator[Here]:
    here = Here(tmp_path)
    yield here
    for process in here.started:
        if process.poll() is None:
            kill_tree(process)


def test_a_run_here_fails_with_the_stage_s_sentence_and_continues_from_it(here):
    status, said = here.run("--start-from", "sft")
    assert status == 1
    assert "Expected what sft and later stages read to be up to date, found collect, prepare stale." in said
    status, said = here.run("-S", "sft.max_steps=13")
    assert status == 1
    assert "To run: collect, prepare, sft, grpo, report, evaluate." in said
    assert "\nExpected another number of steps than 13, found 13 in sft.max_steps.\n" in said
    assert list(read_lock(here.folder, STAGES)) == ["collect", "prepare"]
    status, said = here.run("-S", "sft.max_steps=14", "--experiment", "trial")
    assert (status, "To run: sft, grpo, report, evaluate." in said) == (0, True), said
    assert "sft: step 20 of 20" in said
    assert list(read_lock(here.folder, STAGES)) == [*STAGES]
    assert git(here.folder, "for-each-ref", "refs/exps/*/*/trial")
    status, said = here.run("--force", "report")
    assert (status, "To run: report." in said) == (0, True), said


HANGS = ("--stop-after", "sft", "-S", "sft.max_steps=15")


def test_a_stage_that_hangs_is_stopped_with_its_processes_and_the_run_says_which_and_when(here):
    set_params(here.folder, {"flows": {"timeout_s": {"gpu": 40}}})
    status, said = here.run(*HANGS)
    assert status == 1
    assert re.search("^Expected `.* sft` to end within 40 s, found it running; it was stopped.$", said, re.MULTILINE)
    assert not runs(hanging(said))


def test_a_second_run_here_is_refused_with_the_name_of_the_first_which_an_interrupt_ends(here):
    set_params(here.folder, {"flows": {"checkout_wait_s": 1.0}})
    first = here.start(*HANGS)
    said = next(line for line in first.stdout if "sft: hangs" in line)
    status, refusal = here.run()
    assert status == 1
    assert re.search(rf"^Expected no other run .* found flow run \S+, process {first.pid}.$", refusal, re.MULTILINE)
    assert runs(hanging(said))
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=100)
    assert first.returncode
    assert not runs(hanging(said))
    assert list(read_lock(here.folder, STAGES)) == ["collect", "prepare"]


def hanging(said: str) -> str:
    """The process that the stage has started."""
    return re.findall(r"sft: hangs with (\d+)", said)[0]
