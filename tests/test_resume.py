"""A training that was ended goes on, and ends with the bytes of one that never was."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_language import Run

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


def different(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> dict[str, dict]:
    """The settings of each stage: GRPO starts from a model that has begun to learn."""
    folder = tmp_path_factory.mktemp("start")
    assert execute(Run("sft", str(folder), {"max_steps": 60, "save_steps": 100})) == [0]
    return {"sft": {}, "grpo": {"start": str(folder / "sft")}}


@pytest.mark.parametrize(
    ("stage", "kill", "term"),
    [
        pytest.param("sft", 13, 27, id="sft"),
        # Eight steps see every prompt once: the second epoch's order has to be the same too.
        pytest.param("grpo", 10, 9, id="grpo"),
    ],
)
def test_a_training_ended_by_a_signal_ends_with_the_same_bytes(tmp_path, start, stage, kill, term):
    run = lambda folder, *end: Run(stage, str(tmp_path / folder), start[stage], *end)  # noqa: E731
    statuses = execute(
        run("whole"), run("killed", "SIGKILL", kill), run("killed"), run("stopped", "SIGTERM", term), run("stopped")
    )
    assert statuses[:4] == [0, -9, 0, 143]
    whole = written(tmp_path / "whole", stage)
    assert f"{stage}/model.safetensors" in whole
    assert different(whole, written(tmp_path / "killed", stage)) == []
    assert different(whole, written(tmp_path / "stopped", stage)) == []


def test_a_stopped_training_says_where_it_stopped_and_keeps_that_step(tmp_path):
    assert execute(Run("sft", str(tmp_path), {}, "SIGTERM", 3)) == [143]
    errors = (tmp_path / "stderr.txt").read_text()
    assert errors.splitlines()[-1] == "Stopped by SIGTERM at step 3 of 30; the next run goes on from there."
    assert "Traceback" not in errors
    assert [path.parent.name for path in tmp_path.glob("work/*/whole.json")] == ["checkpoint-3"]


def test_a_run_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path, start):
    run = lambda folder, *end: Run("sft", str(tmp_path / folder), {}, *end)  # noqa: E731
    assert execute(run("whole"), run("cut", "SIGTERM", 4), run("cut", "SIGKILL", "saving"), run("cut")) == [
        0,
        143,
        -9,
        0,
    ]
    assert "Going on from checkpoint-4" in (tmp_path / "cut/stderr.txt").read_text()
    assert different(written(tmp_path / "whole", "sft"), written(tmp_path / "cut", "sft")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        pytest.param("sft", {}, id="sft"),
        pytest.param("grpo", {}, id="grpo"),
        pytest.param("grpo", {"beta": 0.02, "lora": {"r": 2, "alpha": 4, "dropout": 0.1, "last_blocks": 1}}, id="lora"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_five_kills_at_random_steps_change_nothing(tmp_path, start, stage, settings, seed):
    settings = start[stage] | settings
    last = {"sft": 30, "grpo": 12}[stage]
    steps = random.Random(seed).sample(range(1, last), 5)
    kills = [Run(stage, str(tmp_path / "cut"), settings, "SIGKILL", step) for step in steps]
    runs = [Run(stage, str(tmp_path / "whole"), settings), *kills, Run(stage, str(tmp_path / "cut"), settings)]
    statuses = execute(*runs)
    assert statuses[-1] == statuses[0] == 0 and -9 in statuses
    assert different(written(tmp_path / "whole", stage), written(tmp_path / "cut", stage)) == []
