"""ReferIt3D: Nr3D's and Sr3D's utterances, which single an object out among others of its class."""

import ast
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import field_validator

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, csv_rows
from r1pipe.datasets.sample import Sample
from r1pipe.errors import DataError

logger = logging.getLogger(__name__)

VIEW_WORDS = frozenset(
    {"front", "behind", "back", "right", "left", "facing", "leftmost", "rightmost", "looking", "across"}
)
"""Tokens that make an utterance view-dependent: whole tokens, case-sensitive, as the official evaluation has them."""


class Utterance(Row):
    """A row of `nr3d.csv` or `sr3d.csv`."""

    stimulus_id: str
    utterance: str
    tokens: tuple[str, ...]
    scan_id: str
    target_id: int
    mentions_target_class: bool
    assignmentid: str | None = None
    """Nr3D's own id; Sr3D has none."""

    @field_validator("tokens", mode="before")
    @classmethod
    def _written_list(cls, value: Any) -> Any:
        """The column holds a Python list, written out."""
        try:
            return ast.literal_eval(value)
        except (SyntaxError, ValueError):
            raise ValueError("should be a written list of tokens") from None


class Stimulus(NamedTuple):
    """What `scene0525_00-plant-3-10-6-11` says: scene, class, how many of the class, the target, the others."""

    scene_id: str
    num_objects: int
    target_id: int


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A grounding sample an utterance that names the target's class, the filter of ReferIt3D's own training.

    Raises:
        DataError: if a row is malformed, contradicts its stimulus, or its scene or object is unknown.
    """
    num_left_out = 0
    for number, (where, row) in enumerate(csv_rows(paths, Utterance)):
        if not row.mentions_target_class:
            num_left_out += 1
        elif (sample := _sample(row, where, number, catalog)) is not None:
            yield sample
    if num_left_out:
        logger.info("%s: %d utterances that do not name the target's class left out", paths[0].name, num_left_out)


def _sample(row: Utterance, where: str, number: int, catalog: Catalog) -> Sample | None:
    stimulus = _stimulus(row, where)
    room = catalog.room(row.scan_id, where)
    if room is None:
        return None
    (target,) = room.pick([row.target_id], where)
    source = "nr3d" if row.assignmentid else "sr3d"
    tags = {"easy" if stimulus.num_objects <= 2 else "hard"}
    tags |= {"view-dependent"} if VIEW_WORDS & set(row.tokens) else set()
    return Sample(
        id=f"{source}-{row.scan_id}-{row.assignmentid or number}",
        scene_id=row.scan_id,
        task="grounding",
        question=row.utterance.strip(),
        object_ids=(target.id,),
        boxes=(target.box,),
        tags=tuple(sorted(tags)),
        source=source,
        split=room.split,
    )


def _stimulus(row: Utterance, where: str) -> Stimulus:
    parts = row.stimulus_id.split("-", maxsplit=4)
    if len(parts) < 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
        raise DataError(
            f"Expected a stimulus_id <scene>-<class>-<count>-<target>[-<others>] in {where}, found {row.stimulus_id!r}."
        )
    stimulus = Stimulus(parts[0], int(parts[2]), int(parts[3]))
    if (stimulus.scene_id, stimulus.target_id) != (row.scan_id, row.target_id):
        raise DataError(
            f"Expected the stimulus_id of scene {row.scan_id}, target {row.target_id} in {where}, "
            f"found {row.stimulus_id!r}."
        )
    return stimulus
