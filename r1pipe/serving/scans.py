"""A scan from a file or a folder: checked, bounded and thinned.

Shape suffixes: P points. Frame: metres, z up.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.npz import read_arrays
from r1pipe.datasets.ply import parse_vertices
from r1pipe.datasets.scannet import read_scan as read_scannet
from r1pipe.errors import DataError, MissingError
from r1pipe.scenes.colours import as_bytes
from r1pipe.scenes.scene import NO_INSTANCE, Scene
from r1pipe.scenes.thin import thin
from r1pipe.serving.meshes import MAX_POINTS, Points, read_glb, read_obj

MAX_BYTES = 200_000_000
"""Largest scan file that is opened, and the largest that one unzips to."""

MIN_POINTS = 100
GZIP = ".gz"


class ScanFile(NamedTuple):
    """A file as it was sent, unzipped."""

    name: str
    """What the sender calls it."""

    suffix: str
    """One of `FORMATS`."""

    content: bytes

    @property
    def id(self) -> str:
        """The scene's id: the same for the same content, zipped or not."""
        # 64 bits of it: nobody finds another scan of the same id.
        return f"scan-{hashlib.sha256(self.content).hexdigest()[:16]}"


def is_scan(name: str) -> bool:
    """Whether a file of this name is read, by its suffix: one of `FORMATS`, zipped or not."""
    return Path(name.lower().removesuffix(GZIP)).suffix in FORMATS


def read_scan(path: Path, *, voxel_size: float) -> Scene:
    """The scene in a ScanNet scan folder or a file of `FORMATS`, thinned; no annotations are needed.

    Raises:
        MissingError: if there is nothing at the path.
        DataError: if it is too large, damaged, not in metres or of another kind.
    """
    if path.is_dir():
        labels = LabelMap({}, {})
        return thin(read_scannet(path.parent, path.name, labels, annotated=False).scene, voxel_size)
    if not path.is_file():
        raise MissingError(f"Expected a scan at {path}, found nothing there.")
    _check_size(path.stat().st_size, str(path))
    return decode_scan(open_scan(path.read_bytes(), path.name), voxel_size=voxel_size)


def open_scan(content: bytes, name: str) -> ScanFile:
    """A file as it was sent, unzipped where it is zipped.

    Raises:
        DataError: if it is too large, of another kind, or no gzip file though its name says so.
    """
    name = Path(name).name[:80] or "the file"
    _check_size(len(content), name)
    if not is_scan(name):
        known = ", ".join(FORMATS)
        raise DataError(f"Expected a scan as {known}, or one of these with {GZIP}, found {name}.")
    if name.lower().endswith(GZIP):
        content = _unzip(content, name)
    return ScanFile(name, Path(name.lower().removesuffix(GZIP)).suffix, content)


def _unzip(content: bytes, name: str) -> bytes:
    try:
        # No more is unzipped than is allowed: what a bomb goes on to say is never read.
        unzipped = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"Expected a gzip file in {name}, found one that does not unzip: {error}.") from None
    _check_size(len(unzipped), name)
    return unzipped


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise DataError(f"Expected a scan of at most {MAX_BYTES:,} bytes, found {size:,} or more in {name}.")


def decode_scan(file: ScanFile, *, voxel_size: float) -> Scene:
    """The scene in a file, thinned.

    Raises:
        DataError: if it is damaged, has too few or too many points, or is not in metres.
    """
    xyz_P3, rgb_P3 = FORMATS[file.suffix](file.content, file.name)
    if not MIN_POINTS <= len(xyz_P3) <= MAX_POINTS:
        raise DataError(f"Expected {MIN_POINTS} to {MAX_POINTS:,} points in {file.name}, found {len(xyz_P3):,}.")
    try:
        scene = Scene(file.id, xyz_P3, rgb_P3, np.full(len(xyz_P3), NO_INSTANCE, np.int32), ())
    except DataError as error:
        # The sender knows the scan by its own name.
        raise DataError(str(error).replace(f"scene {file.id}", file.name)) from None
    return thin(scene, voxel_size)


def _read_npz(content: bytes, name: str) -> Points:
    shape = (range(MAX_POINTS + 1), range(3, 4))
    xyz_P3, rgb_P3 = read_arrays(io.BytesIO(content), {"xyz": shape, "rgb": shape}, name, max_bytes=MAX_BYTES)
    if xyz_P3.shape != rgb_P3.shape:
        raise DataError(f"Expected one colour a point in {name}, found {len(xyz_P3)} points, {len(rgb_P3)} colours.")
    return Points(_metres(xyz_P3), as_bytes(rgb_P3, name))


def _read_ply(content: bytes, name: str) -> Points:
    vertices = parse_vertices(content, name, max_vertices=MAX_POINTS)
    return Points(_metres(vertices.xyz), vertices.rgb)


def _metres(xyz_P3: NDArray[np.generic]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is infinite, and a scene refuses that
        return xyz_P3.astype(np.float32)


FORMATS: Mapping[str, Callable[[bytes, str], Points]] = MappingProxyType(
    {".ply": _read_ply, ".npz": _read_npz, ".glb": read_glb, ".obj": read_obj}
)
"""By suffix: how a file is read, given its content and what the sender calls it. A `.glb` is y up, the others z up."""
