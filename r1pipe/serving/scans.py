"""A scan from a file or a folder: checked, bounded, thinned, and taken through the frozen encoders.

Shape suffixes: P points. Frame: metres, z up.
"""

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.ply import read_vertices
from r1pipe.datasets.scannet import read_scan as read_scannet
from r1pipe.errors import DataError, MissingError
from r1pipe.models.features import SceneFeatures
from r1pipe.params import Render
from r1pipe.scenes.scene import NO_INSTANCE, Scene
from r1pipe.scenes.thin import thin
from r1pipe.views.views import Views, render_scene

MAX_BYTES = 200_000_000
"""Largest scan file that is opened."""

MAX_POINTS = 5_000_000
"""Most points that memory is taken for; a ScanNet scan has 50,000 to 600,000."""

MIN_POINTS = 100
MAX_EXTENT_M = 100.0
"""A larger room is most likely in millimetres."""


class SceneEncoder(Protocol):
    """What `r1pipe.models.encoders.encoding.Encoders` offers here."""

    def encode(self, scene: Scene, views: Views) -> SceneFeatures:
        """The frozen encoders' view of a scene."""
        ...


def encode_scan(scan: Path | Scene, encoders: SceneEncoder, *, render: Render, voxel_size: float) -> SceneFeatures:
    """What the encoders make of a scan: views rendered as in stage `render`, features as in stage `encode`.

    Args:
        scan: a ScanNet scan folder, a `.ply` or `.npz` file (`xyz` metres z up, `rgb` 0..255), or a scene already read.
        encoders: the frozen encoders.
        render: how views are taken; real RGB-D frames are not needed.
        voxel_size: metres, the grid on which the cloud is thinned.
    """
    scene = scan if isinstance(scan, Scene) else read_scan(scan, voxel_size=voxel_size)
    return encoders.encode(scene, render_scene(scene, render))


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
    _check(xyz_P3, name)
    scene_id = f"scan-{hashlib.sha256(content).hexdigest()[:12]}"
    return thin(_bare_scene(scene_id, xyz_P3, rgb_P3), voxel_size)


def _bare_scene(scene_id: str, xyz_P3: NDArray[np.float32], rgb_P3: NDArray[np.uint8]) -> Scene:
    return Scene(scene_id, xyz_P3, rgb_P3, np.full(len(xyz_P3), NO_INSTANCE, np.int32), ())


def _check(xyz_P3: NDArray[np.float32], name: str) -> None:
    if not MIN_POINTS <= len(xyz_P3) <= MAX_POINTS:
        raise DataError(f"Expected {MIN_POINTS} to {MAX_POINTS:,} points in {name}, found {len(xyz_P3):,}.")
    if not np.isfinite(xyz_P3).all():
        raise DataError(f"Expected finite coordinates in {name}, found NaN or infinity.")
    extent = float(np.ptp(xyz_P3, axis=0).max())
    if not 0 < extent <= MAX_EXTENT_M:
        raise DataError(f"Expected a room in metres, at most {MAX_EXTENT_M:g} m across, found {extent:g} in {name}.")


def _read_npz(content: bytes, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            arrays = [_read_member(archive, key, name) for key in ("xyz", "rgb")]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Expected a NumPy archive in {name}, found one that does not read: {error}.") from None
    xyz_P3, rgb_P3 = arrays
    if xyz_P3.shape != rgb_P3.shape:
        raise DataError(f"Expected one colour a point in {name}, found {len(xyz_P3)} points, {len(rgb_P3)} colours.")
    return xyz_P3.astype(np.float32), _colours(rgb_P3, name)


def _read_member(archive: zipfile.ZipFile, key: str, name: str) -> NDArray[np.generic]:
    """One `(P, 3)` array of an archive; its header is believed only within the bounds."""
    member = f"{key}.npy"
    if member not in archive.namelist():
        raise DataError(f"Expected arrays xyz and rgb in {name}, found {sorted(archive.namelist())}.")
    if archive.getinfo(member).file_size > MAX_BYTES:
        raise DataError(f"Expected at most {MAX_BYTES:,} bytes of {key} in {name}, found more.")
    with archive.open(member) as file:
        shape, dtype = _npy_header(file)
    if len(shape) != 2 or shape[1] != 3 or shape[0] > MAX_POINTS:
        raise DataError(f"Expected {key} of shape (P, 3), P at most {MAX_POINTS:,}, in {name}, found {shape}.")
    if dtype.kind not in "fiu":
        raise DataError(f"Expected numbers in {key} of {name}, found {dtype}.")
    with archive.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its array format is version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _colours(rgb_P3: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    values = rgb_P3.astype(np.float64)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise DataError(f"Expected colours of 0..255 in {name}, found others.")
    # Half of the tools that write float colours mean 0..1.
    scale = 255.0 if rgb_P3.dtype.kind == "f" and values.max() <= 1.0 else 1.0
    return np.asarray(np.rint(values * scale), np.uint8)


def _read_ply(content: bytes, name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.ply"
        path.write_bytes(content)
        try:
            vertices = read_vertices(path)
        except DataError as error:
            # The sender knows the scan by its own name.
            raise DataError(str(error).replace(str(path), name)) from None
    return vertices.xyz.astype(np.float32), vertices.rgb
