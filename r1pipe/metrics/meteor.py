"""METEOR 1.5 by its own jar, as coco-caption runs it: an optional extra that needs Java.

Source: Denkowski and Lavie 2014, `meteor-1.5.jar -l en -norm` in the build that coco-caption ships. Nothing replaces it: on the same
5,000 pairs nltk's METEOR has a mean of 0.675 and the jar 0.384. The corpus score is a function of sums over segments, as BLEU's is,
so it is resampled without running the jar again.

Shape suffixes: N samples, K = 23 statistics of a segment.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError, MissingError
from r1pipe.files import sha256

Floats = NDArray[np.float64]

VARIABLE = "R1PIPE_METEOR"
"""The environment variable that names the jar; without it, the one of an installed pycocoevalcap is taken."""
PARAPHRASES = "c147ac7d2c91f2fbb3ad31e4b352235061eb83145e0434daf217ee9ca5975f48"
"""SHA-256 of the paraphrase table. Clones without Git LFS hold a pointer instead, and the jar then runs, silently, 0.002 lower."""
NUM_STATISTICS = 23
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of exact, stem, synonym and paraphrase matches; all as the jar's English ranking task has them."""


def find_jar() -> Path:
    """The jar, when everything that it needs is there.

    Raises:
        MissingError: without Java, the jar, or its paraphrase table; the sentence is the reason why a score is null.
    """
    if shutil.which("java") is None:
        raise MissingError("Expected Java for METEOR's jar, found none; another METEOR would score otherwise.")
    jar = _jar()
    table = jar.parent / "data" / "paraphrase-en.gz"
    if not table.is_file():
        raise MissingError(f"Expected METEOR's paraphrase table at {table}, found none.")
    if sha256(table) != PARAPHRASES:
        raise MissingError(
            f"Expected METEOR's paraphrase table at {table}, found another file of {table.stat().st_size:,} bytes: "
            "133 are a Git LFS pointer."
        )
    return jar


def _jar() -> Path:
    named = os.environ.get(VARIABLE)
    spec = None if named else find_spec("pycocoevalcap")
    folders = list(spec.submodule_search_locations or []) if spec else []
    jar = Path(named) if named else Path(*folders[:1], "meteor", "meteor-1.5.jar")
    if not (named or folders) or not jar.is_file():
        where = (
            f"at {named} ({VARIABLE})"
            if named
            else f"in an installed pycocoevalcap (the extra `meteor`) or at {VARIABLE}"
        )
        raise MissingError(f"Expected METEOR's jar {where}, found none; another METEOR would score otherwise.")
    return jar.resolve()


def meteor_statistics(jar: Path, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """What the corpus score adds up, `(N, 23)`, from one run of the jar.

    Raises:
        DataError: if the jar does not answer every segment.
    """
    lines = [_line(candidate, texts) for candidate, texts in zip(candidates, references, strict=True)]
    command = ["java", "-jar", "-Xmx2G", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    run = subprocess.run(
        command, cwd=jar.parent, input="\n".join([*lines, ""]).encode(), capture_output=True, check=False
    )
    rows = [line.split() for line in run.stdout.decode().splitlines()]
    if len(rows) != len(lines) or any(len(row) != NUM_STATISTICS for row in rows):
        error = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise DataError(
            f"Expected {NUM_STATISTICS} statistics of {len(lines)} segments from {jar}, found {len(rows)} lines; {' '.join(error)}."
        )
    statistics_NK = np.array(rows, dtype=np.float64)
    # The jar's aggregate counts no chunk for a segment that is matched whole, in one.
    whole = (statistics_NK[:, 20] == 1) & (statistics_NK[:, 21:23] == statistics_NK[:, :2]).all(axis=1)
    statistics_NK[whole, 20] = 0
    return statistics_NK


def _line(candidate: str, references: Sequence[str]) -> str:
    """The jar's input line; `|||` parts its fields and a line's end would shift all that follows."""
    candidate = candidate.replace("|||", "").replace("  ", " ")
    parts = [" ||| ".join(text.replace("|||", "") for text in references), candidate]
    return " ||| ".join(("SCORE", *parts)).replace("\n", "").replace("\r", "")


def meteor(sums_K: Floats) -> Floats:
    """METEOR of sets of samples, `(...)`, 0..1, from the sums of their statistics, `(..., 23)`: the jar's aggregate."""
    length_2, function_2 = sums_K[..., 0:2], sums_K[..., 2:4]
    matches = sums_K[..., 4:20].reshape(*sums_K.shape[:-1], 4, 4)
    content_2, small_2 = matches[..., 0:2], matches[..., 2:4]
    hits_2 = ((_DELTA * content_2 + (1 - _DELTA) * small_2) * _WEIGHTS[:, None]).sum(axis=-2)
    weight_2 = _DELTA * (length_2 - function_2) + (1 - _DELTA) * function_2
    share_2 = np.divide(hits_2, weight_2, out=np.zeros_like(hits_2), where=weight_2 > 0)
    precision, recall = share_2[..., 0], share_2[..., 1]
    bottom = (1 - _ALPHA) * recall + _ALPHA * precision
    mean = np.divide(precision * recall, bottom, out=np.zeros_like(bottom), where=bottom > 0)
    matched = sums_K[..., 21:23].sum(axis=-1) / 2
    fragments = np.divide(sums_K[..., 20], matched, out=np.zeros_like(matched), where=matched > 0)
    return np.asarray(mean * (1 - _GAMMA * fragments**_BETA))
