"""From the manifest to scenes and samples."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

from r1pipe.datasets import scannet_questions
from r1pipe.datasets.catalog import Catalog, Room
from r1pipe.datasets.labels import LABEL_MAP, LabelMap
from r1pipe.datasets.manifest import SPLITS, Location, Manifest, Root, read_splits
from r1pipe.datasets.sample import Sample
from r1pipe.datasets.scannet import read_scan
from r1pipe.datasets.sources import SOURCES
from r1pipe.errors import DataError
from r1pipe.files import write_jsonl
from r1pipe.progress import track
from r1pipe.scenes.thin import thin

logger = logging.getLogger(__name__)


def write_scenes(manifest: Manifest, folder: Path, *, voxel_size: float, workers: int) -> dict[str, Room]:
    """Write every scene of the manifest as `<id>.safetensors`, thinned; boxes come from all vertices.

    Args:
        manifest: what was collected; each file is checked against it before it is read.
        folder: where the scenes go.
        voxel_size: metres, the grid of `thin`.
        workers: processes.

    Returns:
        What annotations need to know of each scene.

    Raises:
        MissingError: if a file is gone.
        DataError: if a file has changed since it was collected, or is broken.
    """
    locations = list(manifest.locations())
    for root in manifest.roots:
        root.check(root.meta)
    write = partial(_write_scene, folder=folder, voxel_size=voxel_size)
    if workers == 1:
        rooms = list(track(map(write, locations), "prepare scenes", total=len(locations)))
    else:
        # A forked child would inherit torch's and numba's locks in whatever state they are.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            results = pool.map(write, locations, chunksize=4)
            rooms = list(track(results, "prepare scenes", total=len(locations)))
    return {location.scene.id: room for location, room in zip(locations, rooms, strict=True)}


def _write_scene(location: Location, *, folder: Path, voxel_size: float) -> Room:
    root, entry = location
    root.check(entry.files)
    scan = read_scan(root.scans, entry.id, _labels(root), annotated=entry.annotated)
    thin(scan.scene, voxel_size).save(folder)
    return Room.of(scan, entry.split)


def _labels(root: Root) -> LabelMap:
    return LabelMap.load(root.folder / "meta" / LABEL_MAP)


def read_samples(manifest: Manifest, rooms: Mapping[str, Room], *, seed: int) -> list[Sample]:
    """The samples of every annotation file, by id; a real scan that none of them asks about gets questions of its own.

    Raises:
        DataError: if a file has changed since it was collected, a row is malformed, or two samples have one id.
    """
    samples = [sample for root in manifest.roots for sample in _root_samples(root, rooms, seed)]
    samples.sort(key=lambda sample: sample.id)
    for one, two in pairwise(samples):
        if one.id == two.id:
            raise DataError(
                f"Expected every sample once, found id {one.id} twice: {one.question[:60]!r}, {two.question[:60]!r}."
            )
    return samples


def _root_samples(root: Root, rooms: Mapping[str, Room], seed: int) -> list[Sample]:
    here = {scene.id: rooms[scene.id] for scene in root.scenes}
    catalog = Catalog(read_splits(root.folder / "meta"), here, _labels(root))
    samples: list[Sample] = []
    for annotations in root.annotations:
        root.check(annotations.files)
        paths = [root.folder / file.path for file in annotations.files]
        samples += SOURCES[annotations.source].read(paths, catalog)
    if catalog.absent:
        logger.warning(
            "%s: %d annotations of %d scenes are passed over because their scans are not in %s",
            *(root.path, catalog.absent.total(), len(catalog.absent), root.scans),
        )
    if root.kind == "scannet":
        samples += _own_questions(catalog, {sample.scene_id for sample in samples}, seed)
    return samples


def _own_questions(catalog: Catalog, asked: set[str], seed: int) -> Iterable[Sample]:
    names = catalog.labels.names
    for scene_id, room in catalog.rooms.items():
        if scene_id not in asked:
            yield from scannet_questions.read(scene_id, room.objects, room.split, names, seed)


def write_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write `{train,val,test}.jsonl`."""
    rows = defaultdict(list)
    for sample in samples:
        rows[sample.split].append(sample)
    for split in SPLITS:
        write_jsonl(folder / f"{split}.jsonl", rows[split])
