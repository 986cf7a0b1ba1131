"""Scene-30K: questions with a chain of thought, one JSON object a line.

The released rows have `scene_id`, `question` and `cot`. Ours have what else a sample needs as well, so that a released
dataset can be read back as the samples that it was made of.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from r1pipe.datasets.catalog import Catalog, Room
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.rows import Row, parse
from r1pipe.datasets.sample import Pose, Sample
from r1pipe.files import read_jsonl
from r1pipe.params.section import Task
from r1pipe.response import parse as parse_response

logger = logging.getLogger(__name__)


class Chain(Row):
    """A row: the answer stands in `cot`, `<think>…</think><answer>…</answer>`, or `<answer>…</answer>` alone."""

    scene_id: str
    question: str
    cot: str
    task: Task = "qa"
    answers: tuple[str, ...] = ()
    """Every reference; none means the answer in `cot`."""

    object_ids: tuple[int, ...] = ()
    """The objects of the scene that the answer points at."""

    pose: Pose | None = None
    history: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    id: str | int | None = None
    """The sample's id where the row was made."""

    source: str | None = None
    """The dataset that asked the question."""

    teacher: str | None = None
    """Who wrote `cot`."""

    prompt: str | None = None
    """The version of the templates that the teacher was asked with."""


def chain(draft: Draft, sample: Sample) -> Chain:
    """The row of a text and its sample."""
    shared = sample.model_dump(
        include={"scene_id", "question", "task", "answers", "object_ids", "history", "tags", "id", "source"}
    )
    return Chain(**shared, pose=sample.pose, cot=draft.cot, teacher=draft.teacher, prompt=draft.prompt)


def read_chains(path: Path) -> Iterator[tuple[str, Chain]]:
    """Where each row stands, and the row.

    Raises:
        DataError: if a row is malformed.
    """
    for number, value in enumerate(read_jsonl(path)):
        where = f"{path}, row {number}"
        yield where, parse(Chain, value, where)


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A sample a chain whose answer can be read; the others are counted in the log.

    Raises:
        DataError: if a row is malformed, its scene is unknown, or it names an object that the scene has not.
    """
    for path in paths:
        num_unread = 0
        for number, (where, row) in enumerate(read_chains(path)):
            room = catalog.room(row.scene_id, where)
            response = parse_response(row.cot, think="<think>" in row.cot)
            num_unread += response is None
            if room is not None and response is not None:
                name = f"scene30k-{row.scene_id}-{path.stem}-{number}"
                yield _sample(name, row, row.answers or (response.answer,), room, where)
        if num_unread:
            logger.warning("%s: %d chains without one <think> and one <answer> are left out", path, num_unread)


def _sample(name: str, row: Chain, answers: tuple[str, ...], room: Room, where: str) -> Sample:
    targets = room.pick(row.object_ids, where)
    return Sample(
        id=name,
        scene_id=row.scene_id,
        task=row.task,
        question=row.question.strip(),
        answers=() if row.task == "grounding" else answers,
        object_ids=row.object_ids,
        boxes=tuple(target.box for target in targets),
        pose=row.pose,
        history=row.history,
        tags=row.tags,
        source="scene30k",
        split=room.split,
    )
