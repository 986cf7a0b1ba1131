"""Every command teaches, fails in one sentence, and the doctor says what is missing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r1pipe.cli import app
from r1pipe.doctor import machine

ROOT = Path(__file__).parents[1]
COMMANDS = [command.callback.__name__ for command in app.registered_commands]
runner = CliRunner()


@pytest.fixture
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command):
    result = runner.invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert f"Example: r1pipe {command}" in result.stdout.replace("`", "")


def test_help_imports_nothing_heavy():
    code = (
        "import sys, r1pipe.cli; print([m for m in ('torch', 'gradio', 'bentoml', 'dvc', 'numba') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "nowhere", "what is this?"], "found 'nowhere'"),
        (["ask", "../params", "what is this?"], "found '../params'"),
        (["ask", "nowhere", "what is this?", "--task", "cooking"], "task"),
        (["ask", "nowhere", ""], "question"),
        (["ask", "room.ply", "what is this?", "--model", "no/model"], "no/model"),
        (["view", "nowhere", "--question", "what is this?"], "found 'nowhere'"),
        (["view", "room.ply", "--question", " "], "question"),
        (["score", "cooking", "--predictions", "p", "--references", "r"], "'cooking'"),
        (["score", "qa", "--predictions", "none.jsonl", "--references", "none.jsonl"], "none.jsonl"),
        (["compare", "none.jsonl", "none.jsonl", "--task", "qa", "--references", "none.jsonl"], "none.jsonl"),
        (["compare", "none.jsonl", "none.jsonl", "--task", "qa"], "--references"),
        (["compare", "HEAD", "no-such-thing"], "no-such-thing"),
        (["doctor", "--profile", "huge"], "a scale of conf/scale (paper, "),
        (["doctor", "--profile", "tiny", "-S", "sft.steps=3"], "sft.steps"),
        (["doctor", "--profile", "tiny", "-S", "sft.max_steps=0"], "sft.max_steps"),
        (["doctor", "-S", "data=scannet"], "--profile"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_error_is_one_sentence_and_status_1(arguments, words, in_repository):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Expected ")
    assert words in result.stderr


def test_outside_a_repository_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["run"])
    assert (result.exit_code, "run from the repository's root" in result.stderr) == (1, True)


def test_scores_are_one_json_object_and_a_file(tmp_path):
    predictions, references, out = (tmp_path / name for name in ("p.jsonl", "r.jsonl", "out.json"))
    predictions.write_text(json.dumps({"id": "a", "answer": "a red chair"}) + "\n")
    references.write_text(json.dumps({"id": "a", "answers": ["a red chair"]}) + "\n")
    files = ["--references", str(references), "--predictions", str(predictions)]
    result = runner.invoke(app, ["score", "qa", *files, "--json", str(out)])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["em"] == 100
    assert json.loads(out.read_text()) == json.loads(result.stdout)


def test_the_doctor_never_shows_a_secret(monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret-key")
    findings = list(machine._tools())
    assert ("ok", "GEMINI_API_KEY", "set") in [finding[:3] for finding in findings]
    assert "a-secret-key" not in str(findings)


def test_the_doctor_finds_broken_parameters_and_tight_machines(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("base: {}\n")
    monkeypatch.setattr(machine, "MIN_DISK_GIB", 1e9)
    monkeypatch.setattr(machine, "_packages", lambda: iter(()))
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("found it lacks: free disk, params.yaml.")
