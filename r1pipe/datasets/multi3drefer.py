"""Multi3DRefer: descriptions that none, one or several objects of a scene fit."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, json_rows
from r1pipe.datasets.sample import Sample

NO_TARGET = "none"
"""The answer where nothing fits the description: it names no object, so it predicts no box."""


class Query(Row):
    """A row of `multi3drefer_<split>.json`."""

    scene_id: str
    ann_id: int | str
    object_ids: tuple[int, ...]
    description: str
    eval_type: Literal["zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt"] | None = None
    """Zero, single or multiple targets, with or without distractors of their class."""


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A grounding sample a description; one without targets is answered by `NO_TARGET`.

    Raises:
        DataError: if a row is malformed, or its scene or an object is unknown.
    """
    for where, row in json_rows(paths, Query):
        room = catalog.room(row.scene_id, where)
        if room is None:
            continue
        targets = room.pick(row.object_ids, where)
        named = "_".join(map(str, row.object_ids)) or NO_TARGET
        yield Sample(
            id=f"multi3drefer-{row.scene_id}-{named}-{row.ann_id}",
            scene_id=row.scene_id,
            task="grounding",
            question=row.description.strip(),
            answers=() if targets else (NO_TARGET,),
            object_ids=tuple(target.id for target in targets),
            boxes=tuple(target.box for target in targets),
            tags=(row.eval_type,) if row.eval_type else (),
            source="multi3drefer",
            split=room.split,
        )
