"""Work in progress: what an interrupted stage finds again, outside the outputs that DVC deletes before a run.

`R1PIPE_WORK` names a folder that several clones share, on one machine or on several: a stage that was interrupted in one
goes on in another. It has to lie where `flock` works (NFS from version 4 on).
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1pipe.files import locked, sha256, whole, write_json
from r1pipe.params.run import Paths
from r1pipe.params.section import Section
from r1pipe.stages.launch import is_first

logger = logging.getLogger(__name__)

SHARED = "R1PIPE_WORK"
"""The environment variable that names a shared folder."""


@contextmanager
def in_progress(stage: str, sections: Sequence[Section], inputs: Sequence[Path]) -> Iterator[Path]:
    """A folder that the same stage finds again on the same inputs and parameters; it goes when the stage has finished.

    The processes of a stage share it; the first clears up. Where somebody else is at the same work, it waits.
    """
    shared = os.environ.get(SHARED)
    parent = Path(shared or ".work") / stage
    folder = parent / _fingerprint(sections, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    if not is_first():
        yield folder
        return
    lock = parent / f"{folder.name}.lock"
    # A stage that outlives its worker must not meet the one that takes its work up.
    with locked(
        lock, lambda: logger.warning("Another process is at this work and holds %s; waiting for its end.", lock)
    ):
        folder.mkdir(parents=True, exist_ok=True)  # whoever was waited for has cleared up
        yield folder
        # What another clone has begun with other parameters in a shared folder is its own.
        shutil.rmtree(folder if shared else parent)


def deliver(work: Path, output: Path) -> None:
    """Put what was made in a work folder at its place, whole; a shared folder is on another file system."""
    with whole(output) as draft:
        shutil.move(work, draft)


def record_movement(paths: Paths, stage: str, movement: Mapping[str, Any]) -> None:
    """Write how far each part of the model has moved, once for all processes."""
    if is_first():
        write_json(paths.metrics / f"{stage}.json", {"movement": movement})


def _fingerprint(sections: Sequence[Section], inputs: Sequence[Path]) -> str:
    """Parameters, and name and contents of every input file: the same in every clone."""
    files = sorted(
        file for path in inputs for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()
    )
    listing = [(str(file), sha256(file)) for file in files]
    values = [section.model_dump(mode="json") for section in sections]
    return hashlib.sha256(json.dumps([values, listing]).encode()).hexdigest()[:16]
