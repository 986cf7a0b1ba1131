"""A teacher that repeats what was recorded: the released Scene-30K, or an earlier run's drafts."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from r1pipe.datasets import Sample
from r1pipe.errors import DataError
from r1pipe.files import read_jsonl
from r1pipe.scenes import Scene
from r1pipe.synthesis.teacher import Refusal, SceneOf, Thought

_KEYS = ("scene_id", "question", "cot")


class ReplayTeacher:
    """Looks a sample up by scene and question."""

    name = "replay"
    status = ""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._rows = {(row["scene_id"], row["question"].strip()): row for row in rows}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read JSONL with `scene_id`, `question`, `cot` and perhaps `second_answer`.

        Raises:
            MissingError: if there is no such file.
            DataError: if a row lacks one of the three as text.
        """
        rows = list(read_jsonl(path))
        for number, row in enumerate(rows, 1):
            bad = [key for key in _KEYS if not isinstance(row.get(key), str)]
            if bad:
                raise DataError(f"Expected text under {bad[0]!r} in {path}, row {number}, found {row.get(bad[0])!r}.")
        return cls(rows)

    async def prepare(self, samples: Callable[[], Iterable[Sample]], scene: SceneOf) -> None:
        """Nothing to do ahead."""

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """What was recorded for this scene and question."""
        row = self._rows.get((sample.scene_id, sample.question.strip()))
        if row is None:
            return Refusal("not recorded", f"none of {len(self._rows)} recorded rows has this scene and question")
        return Thought(row["cot"], row.get("second_answer"))

    async def close(self) -> None:
        """Nothing to let go of."""
