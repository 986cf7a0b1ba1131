"""The samples of a run, scene by scene; in memory is only where each stands in its file."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from r1pipe.datasets import Sample
from r1pipe.datasets.subset import stable_subset
from r1pipe.errors import DataError, MissingError
from r1pipe.files import explain
from r1pipe.params.section import Split

_Places = dict[str, "array[int]"]
"""Where the rows of each scene begin, bytes."""


class SampleFiles:
    """`{split}.jsonl` of some splits, in the order split, scene, id; `stable_subset` says which, where it is not all."""

    def __init__(
        self, folder: Path, splits: Sequence[Split], most: Callable[[Split], int | None] = lambda _: None
    ) -> None:
        """Check every row, and note where it stands: a bad one is better found before anything is asked and paid.

        Args:
            folder: where the files are.
            splits: which of them.
            most: how many samples of a split there are to be at most.

        Raises:
            MissingError: if a file is missing.
            DataError: at a row that is no sample; the sentence names file, row and field.
        """
        self._paths = [folder / f"{split}.jsonl" for split in sorted(splits)]
        self._rows: list[_Places] = [_offsets(path) for path in self._paths]
        self._chosen = [
            _choose(path, rows, most(split))
            for path, rows, split in zip(self._paths, self._rows, sorted(splits), strict=True)
        ]

    def __len__(self) -> int:
        return sum(len(offsets) for scenes in self._chosen for offsets in scenes.values())

    def __iter__(self) -> Iterator[Sample]:
        for path, scenes in zip(self._paths, self._chosen, strict=True):
            for scene_id in sorted(scenes):
                yield from (sample for _, sample in _read(path, scenes[scene_id]))

    def captions(self, scene_id: str) -> Mapping[int, str]:
        """What people said of a scene's objects: of each the first reference of its first captioning sample.

        Samples that are not among the chosen count: with more of them a prompt must not become another, paid anew.
        """
        said: dict[int, str] = {}
        for path, scenes in zip(self._paths, self._rows, strict=True):
            for _, sample in _read(path, scenes.get(scene_id, ())):
                if sample.task == "captioning" and sample.answers and len(sample.object_ids) == 1:
                    said.setdefault(sample.object_ids[0], sample.answers[0])
        return said


def _offsets(path: Path) -> _Places:
    """Where the rows of each scene begin, bytes."""
    if not path.is_file():
        raise MissingError(f"Expected samples at {path}, found no such file.")
    scenes: dict[str, array[int]] = defaultdict(lambda: array("q"))
    with path.open("rb") as file:
        position = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                scenes[_parse(line, f"{path}, row {number}").scene_id].append(position)
            position += len(line)
    return dict(scenes)


def _choose(path: Path, scenes: _Places, most: int | None) -> _Places:
    """The places of at most so many rows."""
    if most is None:
        return scenes
    sources = {sample.id: sample.source for offsets in scenes.values() for _, sample in _read(path, offsets)}
    ids = stable_subset(sources, most)
    return {
        scene_id: array("q", (offset for offset, sample in _read(path, offsets) if sample.id in ids))
        for scene_id, offsets in scenes.items()
    }


def _read(path: Path, offsets: Sequence[int]) -> list[tuple[int, Sample]]:
    """The rows that begin there, by id, each with its place."""
    rows = []
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            rows.append((offset, _parse(file.readline(), f"{path}, byte {offset}")))
    return sorted(rows, key=lambda row: row[1].id)


def _parse(line: bytes, where: str) -> Sample:
    try:
        return Sample.model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"Expected a Sample in {where}: {explain(error)}.") from None
