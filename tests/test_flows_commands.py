"""Commands of a flow: heard as they run, ended with all that they started, failed with their own sentence."""

import sys
import time

import pytest
from tiny_flows import runs

from flows.commands import execute
from r1pipe.errors import GateError


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


@pytest.mark.parametrize(
    "session", [pytest.param(False, id="in its group"), pytest.param(True, id="in a session of its own")]
)
def test_a_command_that_hangs_is_stopped_with_all_that_it_started(tmp_path, session):
    child = f"subprocess.Popen(['sleep', '600'], start_new_session={session})"
    code = f"import subprocess; print({child}.pid, flush=True); import time; time.sleep(600)"
    heard: list[str] = []
    with pytest.raises(GateError, match=r"to end within 2 s, found it running; it was stopped\."):
        execute(python(code), tmp_path, heard.append, timeout_s=2.0)
    deadline = time.monotonic() + 10  # a process that is killed closes its files, and a moment later has ended
    while runs(heard[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(heard[0])
