"""Scene-30K: questions with a chain of thought, one JSON object a line."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, parse
from r1pipe.datasets.sample import Sample
from r1pipe.files import read_jsonl
from r1pipe.response import parse as parse_response

logger = logging.getLogger(__name__)


class Chain(Row):
    """A row: the answer stands in `cot`, `<think>…</think><answer>…</answer>`."""

    scene_id: str
    question: str
    cot: str


def read_chains(path: Path) -> Iterator[tuple[str, Chain]]:
    """Where each row stands, and the row.

    Raises:
        DataError: if a row is malformed.
    """
    for number, value in enumerate(read_jsonl(path)):
        where = f"{path}, row {number}"
        yield where, parse(Chain, value, where)


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A question-answering sample a chain whose answer can be read; the others are counted in the log.

    Raises:
        DataError: if a row is malformed, or its scene is unknown.
    """
    for path in paths:
        num_unread = 0
        for number, (where, row) in enumerate(read_chains(path)):
            room, response = catalog.room(row.scene_id, where), parse_response(row.cot, think=True)
            num_unread += response is None
            if room is not None and response is not None:
                yield Sample(
                    id=f"scene30k-{row.scene_id}-{path.stem}-{number}",
                    scene_id=row.scene_id,
                    task="qa",
                    question=row.question.strip(),
                    answers=(response.answer,),
                    source="scene30k",
                    split=room.split,
                )
        if num_unread:
            logger.warning("%s: %d chains without one <think> and one <answer> are left out", path, num_unread)
