"""More than one process: a stage that trains the language model, run by `accelerate launch` as `params.launch` asks."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from r1pipe.errors import GateError, MissingError
from r1pipe.params.run import Launch

_WORD = "R1PIPE_STOPPED"
"""Names the file by which a launched process says that it was stopped."""

_DEVICES = "CUDA_VISIBLE_DEVICES"


def is_launched() -> bool:
    """Whether this is one of the processes that `spread` started."""
    return "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Whether this process speaks for the others; a process alone does."""
    return os.environ.get("RANK", "0") == "0"


def show_one_device() -> None:
    """Leave CUDA the first device that is visible: on several, transformers would train in threads, on which TRL fails.

    Counts only before torch has initialised CUDA.
    """
    os.environ[_DEVICES] = os.environ.get(_DEVICES, "0").partition(",")[0].strip()


def wait_for_all() -> None:
    """Go on once every process of the stage is here; a process alone goes on at once."""
    if is_launched():
        # Whoever launches, or only runs a stage, starts without them.
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def end_stopped() -> NoReturn:
    """End a process that SIGTERM has stopped; one that was launched leaves word."""
    if not is_launched():
        sys.exit(128 + signal.SIGTERM)
    Path(os.environ[_WORD]).touch()
    sys.exit(0)


def spread(launch: Launch) -> None:
    """Run this program anew in as many processes as asked for, and wait for them.

    SIGTERM goes to the processes themselves, which end behind a common step; their launcher would only report a crash.
    For the same reason they end with status 0 then, and leave word: this process ends with SIGTERM's status for them.

    Raises:
        MissingError: if there is no such configuration of accelerate.
        GateError: if one of them failed; it has said why.
    """
    if not launch.accelerate.is_file():
        raise MissingError(f"Expected accelerate's configuration at {launch.accelerate}, found no such file.")
    options = ["--config_file", str(launch.accelerate), "--num_processes", str(launch.processes)]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--main_process_port", "0"]
    with TemporaryDirectory() as folder:
        word = Path(folder) / "stopped"
        environment = os.environ | {_WORD: str(word)}
        with subprocess.Popen([*command, *_program(), *sys.argv[1:]], env=environment) as launcher:
            try:
                status = launcher.wait()
            except SystemExit:
                for process in _children(launcher.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGTERM)
                launcher.wait()
                raise
        if word.exists():
            sys.exit(128 + signal.SIGTERM)
    if status:
        raise GateError(
            f"Expected {launch.processes} processes that end with status 0, found {status}; the first error above says why."
        )


def _program() -> list[str]:
    """What Python was started on: a module or a file."""
    spec = sys.modules["__main__"].__spec__
    return [str(Path(sys.argv[0]).absolute())] if spec is None else ["--module", spec.name]


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
