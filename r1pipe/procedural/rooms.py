"""The embedded data set: procedural rooms in ScanNet's own layout, with the benchmarks' annotations."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from r1pipe.files import whole
from r1pipe.params.scenes import Collect
from r1pipe.params.section import Split
from r1pipe.procedural.annotations.rows import Annotations, annotate
from r1pipe.procedural.layout import furnish
from r1pipe.procedural.room import Room
from r1pipe.procedural.scan import Scan, scan
from r1pipe.procedural.writing import write_annotations, write_meta, write_scan
from r1pipe.progress import track

_SPLITS: tuple[Split, ...] = get_args(Split)


class Job(NamedTuple):
    """One room to be made: everything that it depends on."""

    folder: Path
    """The `scans/` folder."""

    scene_id: str
    split: Split
    number: int
    """Its number within the split."""

    seed: int
    collect: Collect


def write_rooms(folder: Path, collect: Collect, seed: int, workers: int) -> None:
    """Write scans, label map, split lists and annotations of all rooms as `folder`, which appears whole.

    The same seed gives the same bytes, with any number of workers. A room depends on the seed, its split and its number
    in the split alone, so no layout occurs in two splits, and a smaller split is the beginning of a larger one.
    """
    with whole(folder) as draft:
        jobs = room_jobs(draft / "scans", collect, seed)
        with _mapped(jobs, workers) as rooms:
            annotations = list(track(rooms, "rooms", total=len(jobs)))
        pairs = list(zip(jobs, annotations, strict=True))
        write_meta(draft / "meta", {split: [j.scene_id for j in jobs if j.split == split] for split in _SPLITS})
        write_annotations(
            draft / "annotations", {split: [a for j, a in pairs if j.split == split] for split in _SPLITS}
        )


def room_jobs(scans: Path, collect: Collect, seed: int) -> list[Job]:
    """The rooms of all splits, train first, numbered through."""
    rooms = [(split, index) for split in _SPLITS for index in range(getattr(collect.rooms, split))]
    return [
        Job(scans, f"room{number:04d}_00", split, index, seed, collect) for number, (split, index) in enumerate(rooms)
    ]


@contextmanager
def _mapped(jobs: list[Job], workers: int) -> Iterator[Iterator[Annotations]]:
    if workers == 1:
        yield map(write_room, jobs)
        return
    # Not forked: numba's and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield pool.map(write_room, jobs, chunksize=8)


def _one_thread() -> None:
    """The processes are the parallelism; numba's own threads would only contend for their cores."""
    import numba

    numba.set_num_threads(1)


def write_room(job: Job) -> Annotations:
    """Make one room, write its scan, and return what is said about it."""
    room = make_room(job)
    write_scan(job.folder, room.scan)
    return room.annotations


class Made(NamedTuple):
    """A room at its three stages."""

    room: Room
    scan: Scan
    annotations: Annotations


def make_room(job: Job) -> Made:
    """Furnish a room, scan it and annotate what was scanned; nothing is written."""
    rng = np.random.default_rng([job.seed, _SPLITS.index(job.split), job.number])
    room = furnish(rng)
    scanned = scan(
        room,
        job.scene_id,
        rng,
        points_per_m2=job.collect.points_per_m2,
        num_frames=job.collect.frames_per_room,
        frame_size=job.collect.frame_size,
    )
    return Made(room, scanned, annotate(scanned, job.split, rng))
