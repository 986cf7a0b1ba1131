"""ScanRefer: descriptions of one object each, for grounding, and, as Scan2Cap has it, for dense captioning."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, json_rows
from r1pipe.datasets.sample import Sample
from r1pipe.response import identifier


class Description(Row):
    """A row of `ScanRefer_filtered_<split>.json`."""

    scene_id: str
    object_id: int
    object_name: str
    ann_id: int
    description: str


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A grounding sample a description, then a captioning sample an object, whose references are its descriptions.

    Raises:
        DataError: if a row is malformed, or its scene or object is unknown.
    """
    rows: list[tuple[str, Description]] = list(json_rows(paths, Description))
    multiples = _multiples((row for _, row in rows), catalog)
    captions: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for where, row in rows:
        room = catalog.room(row.scene_id, where)
        if room is None:
            continue
        (target,) = room.pick([row.object_id], where)
        sample = Sample(
            id=f"scanrefer-{row.scene_id}-{row.object_id}-{row.ann_id}",
            scene_id=row.scene_id,
            task="grounding",
            question=row.description.strip(),
            object_ids=(target.id,),
            boxes=(target.box,),
            tags=("multiple" if (row.scene_id, row.object_id) in multiples else "unique",),
            source="scanrefer",
            split=room.split,
        )
        captions[row.scene_id, row.object_id].append(sample)
        yield sample
    yield from map(_captioning, captions.values())


def _captioning(samples: list[Sample]) -> Sample:
    first = samples[0]
    return first.model_copy(
        update={
            "id": f"scan2cap-{first.scene_id}-{first.object_ids[0]}",
            "task": "captioning",
            "question": f"describe {identifier(first.object_ids[0])}.",
            "answers": tuple(dict.fromkeys(sample.question for sample in samples)),
            "source": "scan2cap",
        }
    )


def _multiples(rows: Iterable[Description], catalog: Catalog) -> set[tuple[str, int]]:
    """The objects that share ScanRefer's class with another object that the annotations of their scene name.

    The official rule: objects of the scene that nobody described do not count.
    """
    classes = {(row.scene_id, row.object_id): catalog.labels.scanrefer_class(row.object_name) for row in rows}
    counts = Counter((scene_id, cls) for (scene_id, _), cls in classes.items())
    return {key for key, cls in classes.items() if counts[key[0], cls] > 1}
