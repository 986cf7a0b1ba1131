"""ScanQA: questions about a scene, with every answer that an annotator gave."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, json_rows
from r1pipe.datasets.sample import Sample

_TYPES = (
    ("where", ("Where",)),
    ("number", ("How many",)),
    ("colour", ("What color", "What is the color")),
    ("shape", ("What shape", "What type", "What kind")),
    ("object", ("What is",)),
)


class Question(Row):
    """A row of `ScanQA_v1.0_<split>.json`."""

    scene_id: str
    question_id: str
    question: str
    answers: tuple[str, ...] = Field(min_length=1)
    object_ids: tuple[int, ...] = ()


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A question-answering sample a row, with the objects that the answer is about.

    Raises:
        DataError: if a row is malformed, or its scene or an object is unknown.
    """
    for where, row in json_rows(paths, Question):
        room = catalog.room(row.scene_id, where)
        if room is None:
            continue
        objects = room.pick(row.object_ids, where)
        yield Sample(
            id=f"scanqa-{row.scene_id}-{row.question_id}",
            scene_id=row.scene_id,
            task="qa",
            question=row.question.strip(),
            answers=tuple(dict.fromkeys(answer.strip() for answer in row.answers)),
            object_ids=tuple(o.id for o in objects),
            boxes=tuple(o.box for o in objects),
            tags=(question_type(row.question),),
            source="scanqa",
            split=room.split,
        )


def question_type(question: str) -> str:
    """The class of a question by the words that the official evaluation looks for, the first that holds.

    >>> question_type("What color is the chair?")
    'colour'
    """
    text = question[:1].upper() + question[1:]
    return next((name for name, words in _TYPES if any(word in text for word in words)), "other")
