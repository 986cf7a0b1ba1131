"""The samples of a run, scene by scene; in memory is only where each stands in its file."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from r1pipe.datasets import Sample
from r1pipe.errors import DataError, MissingError
from r1pipe.files import explain


class SampleFiles:
    """`{split}.jsonl` of some splits, in the order split, scene, id."""

    def __init__(self, folder: Path, splits: Sequence[str]) -> None:
        """Check every row, and note where it stands: a bad one is better found before anything is asked and paid.

        Raises:
            MissingError: if a file is missing.
            DataError: at a row that is no sample; the sentence names file, row and field.
        """
        self._paths = [folder / f"{split}.jsonl" for split in sorted(splits)]
        self._offsets: list[dict[str, array[int]]] = [_offsets(path) for path in self._paths]

    def __len__(self) -> int:
        return sum(len(offsets) for scenes in self._offsets for offsets in scenes.values())

    def __iter__(self) -> Iterator[Sample]:
        for path, scenes in zip(self._paths, self._offsets, strict=True):
            for scene_id in sorted(scenes):
                yield from _read(path, scenes[scene_id])

    def captions(self, scene_id: str) -> Mapping[int, str]:
        """What people said of a scene's objects: of each the first reference of its first captioning sample."""
        said: dict[int, str] = {}
        for path, scenes in zip(self._paths, self._offsets, strict=True):
            for sample in _read(path, scenes.get(scene_id, ())):
                if sample.task == "captioning" and sample.answers and len(sample.object_ids) == 1:
                    said.setdefault(sample.object_ids[0], sample.answers[0])
        return said


def _offsets(path: Path) -> dict[str, "array[int]"]:
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


def _read(path: Path, offsets: Sequence[int]) -> list[Sample]:
    """The rows that begin there, by id."""
    samples = []
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            samples.append(_parse(file.readline(), f"{path}, byte {offset}"))
    return sorted(samples, key=lambda sample: sample.id)


def _parse(line: bytes, where: str) -> Sample:
    try:
        return Sample.model_validate_json(line)
    except ValidationError as error:
        raise DataError(f"Expected a Sample in {where}: {explain(error)}.") from None
