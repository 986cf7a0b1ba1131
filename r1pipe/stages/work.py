"""Work in progress: what an interrupted stage finds again, outside the outputs that DVC deletes before a run."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from r1pipe.params import Section
from r1pipe.stages.launch import is_first

ROOT = Path(".work")


@contextmanager
def in_progress(stage: str, sections: Sequence[Section], inputs: Sequence[Path]) -> Iterator[Path]:
    """A folder that the same stage finds again on the same inputs and parameters; it goes when the stage has finished.

    The processes of a stage share it; the first clears up.
    """
    parent = ROOT / stage
    folder = parent / _fingerprint(sections, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if is_first():
        shutil.rmtree(parent)


def _fingerprint(sections: Sequence[Section], inputs: Sequence[Path]) -> str:
    """Parameters, and name, size and time of every input file: cheap, and a touched file at worst costs a restart."""
    files = sorted(
        file for path in inputs for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()
    )
    listing = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    values = [section.model_dump(mode="json") for section in sections]
    return hashlib.sha256(json.dumps([values, listing]).encode()).hexdigest()[:16]
