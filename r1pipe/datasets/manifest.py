"""The manifest: every raw file that the pipeline reads, by size and SHA-256, and every scene's split.

Real ScanNet (1.3 TB) is referenced here and stays where it is.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict

from r1pipe.datasets import scannet
from r1pipe.datasets.frames import frame_files, frame_numbers
from r1pipe.datasets.labels import LABEL_MAP
from r1pipe.datasets.rows import parse
from r1pipe.datasets.sources import annotation_files
from r1pipe.errors import DataError, MissingError
from r1pipe.files import read_json, sha256, write_text
from r1pipe.params.section import Split
from r1pipe.progress import track

SPLITS: tuple[Split, ...] = get_args(Split)

Kind = Literal["procedural", "scannet"]


class Entry(BaseModel):
    """What the manifest consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class File(Entry):
    """One raw file."""

    path: str
    """Relative to its root."""

    size: int
    sha256: str


class SceneEntry(Entry):
    """One scan."""

    id: str
    split: Split
    annotated: bool
    """False for ScanNet's test scans, which come without segments."""

    frames: tuple[int, ...]
    """RGB-D frames that are used, at most `frames_per_room`, spread evenly over the scan."""

    files: tuple[File, ...]


class Annotations(Entry):
    """The files of one benchmark."""

    source: str
    files: tuple[File, ...]


class Root(Entry):
    """A folder in ScanNet's layout: `scans/`, `meta/`, `annotations/<source>/`."""

    kind: Kind
    path: str
    meta: tuple[File, ...]
    scenes: tuple[SceneEntry, ...]
    annotations: tuple[Annotations, ...]

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self.path)

    @property
    def scans(self) -> Path:
        """The folder of all its scans."""
        return self.folder / "scans"

    def check(self, files: Sequence[File]) -> None:
        """Compare files on the disk with what was collected.

        Raises:
            MissingError: if one is gone.
            DataError: if one has changed.
        """
        for file in files:
            found = _file(self.folder, self.folder / file.path)
            if found != file:
                raise DataError(
                    f"Expected {self.folder / file.path} as it was collected ({file.size} bytes, SHA-256 "
                    f"{file.sha256[:12]}…), found {found.size} bytes, {found.sha256[:12]}…; run stage collect again."
                )


class Location(NamedTuple):
    """A scene and the root that holds it."""

    root: Root
    scene: SceneEntry

    @property
    def folder(self) -> Path:
        """The folder of the scan."""
        return self.root.scans / self.scene.id


class Manifest(Entry):
    """Everything that stage `collect` found."""

    roots: tuple[Root, ...]

    def locations(self) -> Iterator[Location]:
        """Every scene, by root and id."""
        for root in self.roots:
            for scene in root.scenes:
                yield Location(root, scene)

    @property
    def splits(self) -> dict[str, Split]:
        """The split of each scene."""
        return {location.scene.id: location.scene.split for location in self.locations()}

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if there is no such file.
            DataError: if it is no manifest.
        """
        return parse(cls, read_json(path), f"{path}")


def room_of(scene_id: str) -> str:
    """The physical room of a scan: `scene0000` for `scene0000_00` and its re-scan `scene0000_01`.

    Raises:
        DataError: if the id has no `_NN` at its end.
    """
    match = re.fullmatch(r"(.+)_\d{2}", scene_id)
    if match is None:
        raise DataError(f"Expected a scene id that ends in _NN, as scene0000_00, found {scene_id!r}.")
    return match[1]


def read_splits(meta: Path) -> dict[str, Split]:
    """The split of every scene in `scannetv2_{train,val,test}.txt`.

    Raises:
        MissingError: if a list is not there.
        DataError: if a physical room is in two of them.
    """
    splits: dict[str, Split] = {}
    for split in SPLITS:
        path = meta / f"scannetv2_{split}.txt"
        if not path.is_file():
            raise MissingError(f"Expected the list of {split} scenes at {path}, found no such file.")
        for scene_id in path.read_text(encoding="utf-8").split():
            if splits.setdefault(scene_id, split) != split:
                raise DataError(f"Expected {scene_id} in one split, found it in {splits[scene_id]} and in {path}.")
    check_rooms(splits, f"{meta}")
    return splits


def check_rooms(splits: dict[str, Split], where: str) -> None:
    """Refuse a physical room whose scans are in two splits.

    Raises:
        DataError: at the first such room.
    """
    first: dict[str, str] = {}
    for scene_id, split in splits.items():
        other = first.setdefault(room_of(scene_id), scene_id)
        if splits[other] != split:
            raise DataError(
                f"Expected every scan of a room in one split in {where}, "
                f"found {other} in {splits[other]} and {scene_id} in {split}."
            )


def build(roots: Sequence[tuple[Kind, Path]], *, frames_per_room: int, workers: int) -> Manifest:
    """Look through folders in ScanNet's layout.

    Args:
        roots: what each folder is, and where.
        frames_per_room: RGB-D frames referenced of each scan, at most.
        workers: files hashed at once.

    Raises:
        MissingError: if a folder, a list, the label map or a file of a scan is not there.
        DataError: if a scan is in no list, in two roots, or its room in two splits.
    """
    with ThreadPoolExecutor(workers) as pool:
        manifest = Manifest(roots=tuple(_root(kind, folder, frames_per_room, pool) for kind, folder in roots))
    ids = [location.scene.id for location in manifest.locations()]
    twice = sorted({scene_id for scene_id in ids if ids.count(scene_id) > 1})
    if twice:
        raise DataError(
            f"Expected every scan in one root, found {twice[0]} in {[root.path for root in manifest.roots]}."
        )
    check_rooms(manifest.splits, "the manifest")
    return manifest


def _root(kind: Kind, folder: Path, frames_per_room: int, pool: ThreadPoolExecutor) -> Root:
    scans, meta = folder / "scans", folder / "meta"
    if not scans.is_dir():
        raise MissingError(f"Expected a folder in ScanNet's layout (scans/, meta/) at {folder}, found no {scans}.")
    splits = read_splits(meta)
    ids = sorted(path.name for path in scans.iterdir() if path.is_dir())
    unlisted = [scene_id for scene_id in ids if scene_id not in splits]
    if unlisted:
        raise DataError(f"Expected every scan of {scans} in a list of {meta}, found {unlisted[0]} in none.")
    if not ids:
        raise MissingError(f"Expected scans in {scans}, found none.")
    lists = [meta / LABEL_MAP, *(meta / f"scannetv2_{split}.txt" for split in SPLITS)]
    jobs = ((folder, scene_id, splits[scene_id], frames_per_room) for scene_id in ids)
    scenes = track(pool.map(lambda job: _scene(*job), jobs), f"collect {kind} scans", total=len(ids))
    return Root(
        kind=kind,
        path=folder.as_posix(),
        meta=tuple(_file(folder, path) for path in lists),
        scenes=tuple(scenes),
        annotations=tuple(
            Annotations(source=source, files=tuple(_file(folder, path) for path in paths))
            for source, paths in annotation_files(folder / "annotations").items()
        ),
    )


def _scene(folder: Path, scene_id: str, split: Split, frames_per_room: int) -> SceneEntry:
    scans = folder / "scans"
    annotated = split != "test" or (scans / scene_id / f"{scene_id}{scannet.AGGREGATION}").is_file()
    every = frame_numbers(scans / scene_id)
    spread = np.linspace(0, len(every) - 1, min(frames_per_room, len(every))).round().astype(int)
    frames = tuple(every[i] for i in spread)
    paths = scannet.scan_files(scans, scene_id, annotated=annotated) + frame_files(scans / scene_id, frames)
    files = tuple(_file(folder, path) for path in paths)
    return SceneEntry(id=scene_id, split=split, annotated=annotated, frames=frames, files=files)


def _file(root: Path, path: Path) -> File:
    if not path.is_file():
        raise MissingError(f"Expected a file at {path}, found none.")
    return File(path=path.relative_to(root).as_posix(), size=path.stat().st_size, sha256=sha256(path))
