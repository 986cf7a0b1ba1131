"""What every stage does around its `main`: parameters, logging, seeds, threads, one-sentence errors, costs."""

import errno
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np

from r1pipe.errors import R1Error
from r1pipe.params import Params
from r1pipe.progress import set_up_logging
from r1pipe.stages.costs import record
from r1pipe.stages.launch import end_stopped, is_first, is_launched, show_one_device, spread

logger = logging.getLogger(__name__)

_ACTIONABLE = {
    errno.ENOSPC: "Expected free disk space",
    errno.EDQUOT: "Expected free disk quota",
    errno.EACCES: "Expected permission",
    errno.EPERM: "Expected permission",
    errno.EROFS: "Expected a writable file system",
}


def run(main: Callable[[Params], None], *, in_processes: bool = False) -> None:
    """Run a stage as a process: 0 when it is done, 1 with one sentence, 130 after Ctrl-C, 143 after SIGTERM.

    With `in_processes` it is spread over as many processes as `params.launch` asks for.
    """
    signal.signal(signal.SIGTERM, _stop)
    set_up_logging()
    if not is_first():
        logging.getLogger().setLevel(logging.WARNING)
    try:
        _run(main, in_processes=in_processes)
    except R1Error as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; finished work is kept, the next run goes on from there.\n")
        sys.exit(128 + signal.SIGINT)
    except InterruptedError as stopped:  # by SIGTERM, once a training has kept where it is
        if is_first():
            sys.stderr.write(f"{stopped}\n")
        end_stopped()
    except OSError as error:
        if error.errno not in _ACTIONABLE:
            raise
        _fail(f"{_ACTIONABLE[error.errno]} at {error.filename or Path.cwd()}, found: {error.strerror}.")


def _run(main: Callable[[Params], None], *, in_processes: bool) -> None:
    stage = Path(main.__code__.co_filename).stem
    params = Params.load()
    if in_processes and params.launch.processes == 1 and not is_launched():
        show_one_device()
    seed_everything(params.base.seed, params.base.threads)
    start = time.monotonic()
    if in_processes and params.launch.processes > 1 and not is_launched():
        spread(params.launch)
    else:
        main(params)
    seconds = time.monotonic() - start
    if not is_launched():
        logger.info("%s: done in %.1f s", stage, seconds)
        record(stage, seconds, params.paths.report.parent)


def environment() -> dict[str, str]:
    """The environment in which the `python` of dvc.yaml is this interpreter, whether or not its folder is on the path."""
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([folder, os.environ.get("PATH", "")])}


def seed_everything(seed: int, threads: int) -> None:
    """Seed and limit whatever is imported; torch is not imported for it.

    A stage that imports torch late gets the threads through the environment, and seeds its own generators.
    """
    random.seed(seed)
    np.random.seed(seed)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
    if (numba := sys.modules.get("numba")) is None:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    else:
        # Not both: numba refuses to compile once the variable differs from the number of threads that it launched.
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _stop(number: int, _: FrameType | None) -> None:
    """Leave through the `finally` clauses, so that no half-written file stays."""
    sys.exit(128 + number)


def _fail(sentence: str) -> None:
    sys.stderr.write(" ".join(sentence.split()) + "\n")
    sys.exit(1)
