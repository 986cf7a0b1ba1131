"""Commands whose lines are heard as they come, which end in time, and whose failure is their own sentence."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event, Timer

from r1pipe.errors import GateError
from r1pipe.stages.runner import environment

GRACE_S = 25.0
"""Between SIGTERM, after which a training keeps where it is, and SIGKILL; Prefect gives a run that it cancels 30."""

FRAMES = ("ERROR: failed to reproduce", "Running stage", "> python ", "Updating lock file")
"""What DVC says around a stage; the sentence that says why it failed is the stage's."""

HINTS = (
    "To track the changes with git",
    "git add ",
    "To enable auto staging",
    "dvc config core.autostage",
    "Use `dvc push`",
    "Having any troubles?",
    "fatal: Could not read from remote repository.",
    "Please make sure you have the correct access rights",
    "and the repository exists.",
    "hint: ",
)
"""What DVC and git say to a person at a terminal, behind what was wrong."""

_running: set[subprocess.Popen[str]] = set()


def dvc(*arguments: str) -> list[str]:
    """A DVC command that waits while another one writes."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def execute(
    command: Sequence[str],
    root: Path,
    hear: Callable[[str], None],
    *,
    timeout_s: float | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Run a command in a checkout.

    Args:
        command: the command.
        root: its working directory.
        hear: is given every line of its output, as it comes.
        timeout_s: after so long it is stopped, and everything that it started.
        environ: variables beside those of this process.

    Raises:
        GateError: if it failed, with its last sentence; or did not end in time.
    """
    last: deque[str] = deque(maxlen=50)
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment() | dict(environ or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,  # a stage has processes of its own, which are to end with it
    ) as process:
        _running.add(process)
        late = Event()

        def overdue() -> None:
            late.set()
            _stop(process)

        watch = Timer(timeout_s or 0.0, overdue)
        if timeout_s is not None:
            watch.start()
        try:
            for line in process.stdout or ():
                if (text := line.strip()) and not text.startswith(HINTS):
                    hear(line.rstrip())
                    last.append(text)
            status = process.wait()
        finally:
            watch.cancel()
            _stop(process)
            _running.discard(process)
    name = " ".join(command[command.index("dvc") :] if "dvc" in command else command)
    if late.is_set():
        raise GateError(f"Expected `{name}` to end within {timeout_s:g} s, found it running; it was stopped.")
    if status:
        raise GateError(_sentence(last) or f"Expected `{name}` to end with status 0, found {status}.")


def stop_all() -> None:
    """End what other threads are running: whoever leaves a flow early leaves nothing behind."""
    for process in list(_running):
        _stop(process)


def descendants(process: int) -> list[int]:
    """All that a process has started, directly or not, in its group or out of it."""
    tree = [process]
    for member in tree:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                tree += map(int, children.read_text().split())
    return tree[1:]


def _stop(process: subprocess.Popen[str]) -> None:
    """End the whole group, first asked, then made to; DVC itself is gone at once, the stage may still be saving.

    The processes that `accelerate launch` starts are in sessions of their own: found while their parents live.
    """
    started = list(_opened(descendants(process.pid)))
    _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while _signal(process, 0) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal(process, signal.SIGKILL)
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(each, signal.SIGKILL)
        os.close(each)


def _opened(processes: Iterable[int]) -> Iterator[int]:
    """Descriptors, which name a process even when its number has gone to another."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            yield os.pidfd_open(process)


def _signal(process: subprocess.Popen[str], number: int) -> bool:
    """Whether there was anything left to send it to."""
    process.poll()  # a leader that nobody has waited for counts as one of its group
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _sentence(lines: Sequence[str]) -> str:
    """The last line that the command said for itself."""
    own = [line for line in lines if not line.startswith(FRAMES)]
    return own[-1].removeprefix("ERROR: ") if own else ""
