"""A scan from a file or a folder: checked, bounded and thinned.

Shape suffixes: P points. Frame: metres, z up.
"""

import hashlib
import io
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.npz import read_arrays
from r1pipe.datasets.ply import read_vertices
from r1pipe.datasets.scannet import read_scan as read_scannet
from r1pipe.errors import DataError, MissingError
from r1pipe.scenes.colours import as_bytes
from r1pipe.scenes.scene import NO_INSTANCE, Scene
from r1pipe.scenes.thin import thin

MAX_BYTES = 200_000_000
"""Largest scan file that is opened."""

MAX_POINTS = 5_000_000
"""Most points that memory is taken for; a ScanNet scan has 50,000 to 600,000."""

MIN_POINTS = 100


def read_scan(path: Path, *, voxel_size: float) -> Scene:
    """The scene in a ScanNet scan folder, a `.ply` or a `.npz` file, thinned; no annotations are needed.

    Raises:
        MissingError: if there is nothing at the path.
        DataError: if it is too large, damaged, not in metres or of another kind.
    """
    if path.is_dir():
        labels = LabelMap({}, {})
        return thin(read_scannet(path.parent, path.name, labels, annotated=False).scene, voxel_size)
    if not path.is_file():
        raise MissingError(f"Expected a scan at {path}, found nothing there.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"Expected a scan of at most {MAX_BYTES:,} bytes, found {path.stat().st_size:,} in {path}.")
    return decode_scan(path.read_bytes(), path.name, voxel_size=voxel_size)


def decode_scan(content: bytes, name: str, *, voxel_size: float) -> Scene:
    """The scene in the bytes of a `.ply` or `.npz` file; its id is `scan-` and a hash of the content.

    Raises:
        DataError: if it is too large, damaged, not in metres or of another kind.
    """
    if len(content) > MAX_BYTES:
        raise DataError(f"Expected a scan of at most {MAX_BYTES:,} bytes, found {len(content):,} in {name}.")
    readers = {".ply": _read_ply, ".npz": _read_npz}
    reader = readers.get(Path(name).suffix.lower())
    if reader is None:
        raise DataError(f"Expected a scan as {' or '.join(readers)}, found {name}.")
    xyz_P3, rgb_P3 = reader(content, name)
    if not MIN_POINTS <= len(xyz_P3) <= MAX_POINTS:
        raise DataError(f"Expected {MIN_POINTS} to {MAX_POINTS:,} points in {name}, found {len(xyz_P3):,}.")
    scene_id = f"scan-{hashlib.sha256(content).hexdigest()[:12]}"
    try:
        scene = Scene(scene_id, xyz_P3, rgb_P3, np.full(len(xyz_P3), NO_INSTANCE, np.int32), ())
    except DataError as error:
        # The sender knows the scan by its own name.
        raise DataError(str(error).replace(f"scene {scene_id}", name)) from None
    return thin(scene, voxel_size)


def _read_npz(content: bytes, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    shape = (range(MAX_POINTS + 1), range(3, 4))
    xyz_P3, rgb_P3 = read_arrays(io.BytesIO(content), {"xyz": shape, "rgb": shape}, name, max_bytes=MAX_BYTES)
    if xyz_P3.shape != rgb_P3.shape:
        raise DataError(f"Expected one colour a point in {name}, found {len(xyz_P3)} points, {len(rgb_P3)} colours.")
    return xyz_P3.astype(np.float32), as_bytes(rgb_P3, name)


def _read_ply(content: bytes, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ply"
        path.write_bytes(content)
        try:
            vertices = read_vertices(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), name)) from None  # as above
    return vertices.xyz.astype(np.float32), vertices.rgb
