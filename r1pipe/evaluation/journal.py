"""Batches of completions on the disk: an evaluation that was ended goes on with the batch that it was at."""

import base64
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """What was generated, and the random generator's state behind it: the next batch draws as if nothing had happened."""

    completions: list[str]
    state: str
    """In base64."""


class Journal:
    """The batches of one `Answerer.complete`, a line each, in order; what stands in the file is not generated again."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read the file, if there is one; a last line that a kill or a power cut has torn is cut off.

        Args:
            path: the file; its folder exists. It belongs to one list of requests under one model and one set of options.
            device: the model's, whose generator draws.
        """
        self._generator = (
            torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
        )
        self._path = path
        self._batches = _whole_lines(path)
        if self._batches:
            logger.info("%s: %d batches are there from a run that was ended.", path.name, len(self._batches))

    def __call__(self, number: int, generate: Callable[[], list[str]]) -> list[str]:
        """The completions of a batch: the file's, or those of `generate`, which are then in the file.

        Args:
            number: of the batch, from 0; asked for in order.
            generate: generates them.
        """
        if number < len(self._batches):
            completions, state = self._batches[number]
            self._generator.set_state(torch.from_numpy(np.frombuffer(base64.b64decode(state), np.uint8).copy()))
            return completions
        completions = generate()
        state = base64.b64encode(self._generator.get_state().numpy().tobytes()).decode()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(Batch(completions, state)) + "\n")
        return completions


def _whole_lines(path: Path) -> list[Batch]:
    """The batches of a file, which is cut behind its last whole line."""
    text = path.read_bytes() if path.is_file() else b""
    lines, _, torn = text.rpartition(b"\n")
    if torn:
        os.truncate(path, len(text) - len(torn))
    return [Batch(*json.loads(line)) for line in lines.splitlines()]
