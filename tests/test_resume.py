"""A training, or an evaluation, that was ended goes on, and ends with the bytes of one that never was."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import Run

from r1pipe.evaluation.journal import Journal

PROGRAM = Path(__file__).with_name("tiny_language.py")
ROOT = PROGRAM.parents[1]


def execute(*runs: Run) -> list[int]:
    """The exit statuses of the runs, one after the other; minus the signal where one ended it."""
    environment = {"PYTHONPATH": f"{ROOT}:{PROGRAM.parent}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(PROGRAM)]
    ended = subprocess.run(
        command, input=json.dumps(runs), env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout.splitlines()[-1]))


def written(folder: Path, stage: str) -> dict[str, bytes]:
    """Every file of the model and of the logs."""
    files = [path for part in (stage, "logs") for path in (folder / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def series(folder: Path, name: str) -> list[float]:
    """A logged number, step by step."""
    lines = (folder / f"logs/plots/metrics/{name}.tsv").read_text().splitlines()[1:]
    return [float(line.split()[-1]) for line in lines]


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


ENDS = {
    "sft": [("SIGKILL", 7), ("SIGTERM", 8), ("SIGKILL", "saving")],
    # Eight steps see every prompt once: the order of the second epoch has to be the same too.
    "grpo": [("SIGKILL", 6), ("SIGTERM", 9), ("SIGKILL", "saving")],
}
LAST = {"sft": 16, "grpo": 14}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("resume")


def settings(stage: str, folder: Path) -> dict[str, Any]:
    """All but SFT start from a model that has begun to learn: its completions differ in reward."""
    return {} if stage == "sft" else {"start": str(folder / "begun/sft")}


def begin(folder: Path) -> Run:
    return Run("sft", str(folder / "begun"), {"max_steps": 60, "save_steps": 100})


EVALUATION_ENDS = [("SIGKILL", 5), ("SIGTERM", 21), ("SIGKILL", 40)]
"""Of 60 batches, asked for or found again."""


def whole_and_cut(stage: str, folder: Path, ends: list[tuple[str, int]]) -> list[Run]:
    """A run without a stop; then one that is ended so, and gone on with until it is through."""
    return [
        Run(stage, str(folder / stage / where), settings(stage, folder), *end)
        for where, *end in [("whole",), *(("cut", *end) for end in ends), ("cut",)]
    ]


SHORT = {"max_steps": 10}


@pytest.fixture(scope="module")
def statuses(folder) -> Callable[[str], list[int]]:
    """What the runs of a stage exit with: the first in `<stage>/whole`, the others in `<stage>/cut`."""

    @cache
    def exits(stage: str) -> list[int]:
        begun = [] if stage == "sft" else [begin(folder)]
        return execute(*begun, *whole_and_cut(stage, folder, ENDS[stage]))[len(begun) :]

    return exits


STAGES = ["sft", pytest.param("grpo", marks=pytest.mark.slow)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_ended_by_signals_ends_with_the_same_bytes(folder, statuses, stage):
    assert statuses(stage) == [0, -9, 143, -9, 0]
    whole = written(folder / stage / "whole", stage)
    assert {f"{stage}/model.safetensors", "logs/metrics.json"} <= whole.keys()
    assert different(whole, written(folder / stage / "cut", stage)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_training_says_where_and_goes_on_from_there(folder, statuses, stage):
    statuses(stage)
    (_, first), (_, second), _ = ENDS[stage]
    errors = (folder / stage / "cut/stderr.txt").read_text()
    assert f"Stopped by SIGTERM at step {second} of {LAST[stage]}; the next run goes on from there." in errors
    assert "Traceback" not in errors
    # The third run was killed while it wrote its first checkpoint: the fourth starts where the third did.
    every = {"sft": 5, "grpo": 4}[stage]
    gone_on = re.findall(r"Going on from checkpoint-(\d+)", errors)
    assert gone_on == [str(first // every * every), str(second), str(second)]


@pytest.mark.slow
def test_an_evaluation_ended_by_signals_ends_with_the_same_bytes_and_generates_no_batch_twice(tmp_path):
    assert execute(begin(tmp_path), *whole_and_cut("evaluate", tmp_path, EVALUATION_ENDS)) == [0, 0, -9, 143, -9, 0]
    whole = written(tmp_path / "evaluate/whole", "evaluate")
    assert {"evaluate/grpo-qa.jsonl", "evaluate/grpo-reward.jsonl", "logs/metrics.json"} <= whole.keys()
    assert different(whole, written(tmp_path / "evaluate/cut", "evaluate")) == []
    rewards = [json.loads(line)["total"] for line in whole["evaluate/sft-reward.jsonl"].splitlines()]
    # A batch is a line; 40 of them were there when the last run began, and it added what was missing.
    cut, uncut = (
        {p.name: p.read_text() for p in (tmp_path / f"evaluate/{n}/work").iterdir()} for n in ("cut", "whole")
    )
    said = [text for line in uncut["sft-reward.jsonl"].splitlines() for text in json.loads(line)[0]]
    assert len(set(said)) > len(said) / 2 and len(set(rewards)) > 4  # sampled: no question's draws are another's
    assert cut == uncut
    assert sum(len(text.splitlines()) for text in cut.values()) == 60
    found = re.findall(r"(\d+) batches are there", (tmp_path / "evaluate/cut/stderr.txt").read_text())
    assert sum(map(int, found)) == 5 + 21 + 40


@pytest.mark.parametrize("torn", [1, 9])
def test_a_torn_line_is_generated_again(tmp_path, torn):
    file = tmp_path / "sft-qa.jsonl"

    def ask():
        journal = Journal(file, torch.device("cpu"))
        return [journal(number, lambda: [str(torch.rand(1).item())]) for number in range(3)]

    torch.manual_seed(0)
    drawn, text = ask(), file.read_bytes()
    file.write_bytes(text[:-torn])
    assert (ask(), file.read_bytes()) == (drawn, text)


def same_course(one: Path, other: Path) -> None:
    for name in ("loss", "grad_norm", "views/w_text3d"):
        assert series(one, name) == pytest.approx(series(other, name), rel=1e-4)


@pytest.mark.slow
def test_a_batch_learns_the_same_in_one_pass_and_in_four(tmp_path):
    spread = {"at once": {}, "in four passes": {"device_batch_size": 2}}
    assert execute(*(Run("sft", str(tmp_path / name), SHORT | given) for name, given in spread.items())) == [0, 0]
    same_course(tmp_path / "in four passes", tmp_path / "at once")


@pytest.mark.slow
def test_a_batch_learns_the_same_in_one_process_and_in_two(tmp_path):
    runs = [Run("sft", str(tmp_path / str(processes)), SHORT, processes=processes) for processes in (1, 2)]
    assert execute(*runs) == [0, 0]
    same_course(tmp_path / "2", tmp_path / "1")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_processes_stop_together_and_go_on_to_the_same_bytes(tmp_path, stage):
    run = lambda where, *end: Run(stage, str(tmp_path / where), settings(stage, tmp_path), *end, processes=2)  # noqa: E731
    step = {"sft": 7, "grpo": 9}[stage]  # in the second epoch
    assert execute(begin(tmp_path), run("whole"), run("cut", "SIGTERM", step), run("cut")) == [0, 0, 143, 0]
    assert f"at step {step} of" in (tmp_path / "cut/stderr.txt").read_text()
    assert different(written(tmp_path / "whole", stage), written(tmp_path / "cut", stage)) == []


ADAPTED = {
    "beta": 0.02,
    "lora": {"r": 2, "alpha": 4, "dropout": 0.1, "last_blocks": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("others", [pytest.param({}, id="all weights"), pytest.param(ADAPTED, id="lora")])
def test_controls_ended_in_the_second_go_on_in_it_to_the_same_bytes(tmp_path, processes, others):
    chosen = settings("control", tmp_path) | others
    run = lambda where, *end: Run("control", str(tmp_path / where), chosen, *end, processes=processes)  # noqa: E731
    ends = [("SIGTERM", "sequences 1"), ("SIGTERM", "sequences 5")]
    if processes == 1:  # a launcher of several reports what was killed in its own way
        ends.insert(1, ("SIGKILL", "sequences 2"))
    found = execute(begin(tmp_path), run("whole"), *(run("cut", *end) for end in ends), run("cut"))
    assert found == [0, 0, *(143 if end == "SIGTERM" else -9 for end, _ in ends), 0]
    whole = written(tmp_path / "whole", "control")
    for name in ("prompts", "sequences"):
        assert {f"control/{name}/model.safetensors", f"logs/control/{name}/metrics.json"} <= whole.keys()
    assert different(whole, written(tmp_path / "cut", "control")) == []
    said = (tmp_path / "cut/stderr.txt").read_text()
    assert said.count("control_prompts: 4 samples a step.") == 1
    assert said.count("control_prompts has been trained.") == len(ends)
    assert not (tmp_path / "cut/.work/control").exists()


@pytest.mark.slow
def test_two_processes_reward_the_prompts_that_one_rewards(tmp_path):
    # Each process draws completions of its own, so what is compared is which prompts a step has, each with its whole group.
    found = {}
    runs = [Run("grpo", str(tmp_path / str(n)), settings("grpo", tmp_path), processes=n) for n in (1, 2)]
    assert execute(begin(tmp_path), *runs) == [0, 0, 0]
    for number in (1, 2):
        rows = [
            json.loads(line) for line in (tmp_path / str(number) / "logs/completions.jsonl").read_text().splitlines()
        ]
        assert len({row["completion"] for row in rows}) > len(rows) / 4
        found[number] = Counter((row["step"], row["scene"], row["prompt"]) for row in rows)
    assert found[1] == found[2]
    assert set(found[1].values()) == {4}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "others"),
    [
        pytest.param("sft", {}, id="sft"),
        pytest.param("grpo", {}, id="grpo"),
        pytest.param("grpo", ADAPTED, id="lora"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_five_kills_at_random_steps_change_nothing(tmp_path, stage, others, seed):
    chosen = settings(stage, tmp_path) | others
    steps = sorted(random.Random(seed).sample(range(1, LAST[stage] + 1), 5))
    kills = [Run(stage, str(tmp_path / "cut"), chosen, "SIGKILL", step) for step in steps]
    runs = [Run(stage, str(tmp_path / "whole"), chosen), *kills, Run(stage, str(tmp_path / "cut"), chosen)]
    assert execute(begin(tmp_path), *runs) == [0, 0, *[-9] * 5, 0]
    assert different(written(tmp_path / "whole", stage), written(tmp_path / "cut", stage)) == []
