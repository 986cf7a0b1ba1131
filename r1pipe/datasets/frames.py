"""The RGB-D frames of a scan, as ScanNet's exporter writes them.

In the scan's folder, or in `frames/` below it: `color/<n>.jpg`, `depth/<n>.png` (millimetres), `pose/<n>.txt` (camera
to world, in the frame of the mesh), `intrinsic/intrinsic_color.txt`. Shape suffixes: V frames.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import FloatArray

COLOUR, DEPTH, POSE = "color", "depth", "pose"
INTRINSICS = "intrinsic/intrinsic_color.txt"


class Frames(NamedTuple):
    """V frames of one scan, by number."""

    poses: NDArray[np.float64]
    """`(V, 4, 4)` camera to world, columns right, down, forward, position; scene frame (aligned), metres."""

    intrinsics: NDArray[np.float64]
    """`(V, 3, 3)`, pixels of the colour image."""

    size: tuple[int, int]
    """Width and height of a colour image, pixels; (0, 0) without frames."""

    colour: tuple[Path, ...]
    depth: tuple[Path, ...]
    """Depth images; empty where the scan has none."""


def _folder(scan: Path) -> Path:
    """Where the frames of a scan are: the exporter leaves it to its user."""
    return scan / "frames" if (scan / "frames").is_dir() else scan


def frame_numbers(scan: Path) -> list[int]:
    """The frames of a scan that have a colour image and a pose, in order."""
    stems = [{path.stem for path in (_folder(scan) / folder).glob("*")} for folder in (COLOUR, POSE)]
    return sorted(int(stem) for stem in stems[0] & stems[1] if stem.isdecimal())


def frame_files(scan: Path, numbers: Sequence[int]) -> list[Path]:
    """The files of these frames, intrinsics first; depth images where there are any."""
    if not numbers:
        return []
    folder = _folder(scan)
    paths = [folder / INTRINSICS]
    for number in numbers:
        paths += [_colour(folder, number), folder / POSE / f"{number}.txt"]
        depth = folder / DEPTH / f"{number}.png"
        paths += [depth] if depth.is_file() else []
    return paths


def read_frames(scan: Path, matrix_44: FloatArray, numbers: Sequence[int] | None = None) -> Frames:
    """The frames of a scan folder; none where it has none.

    Args:
        scan: the scan's folder.
        matrix_44: the scan's alignment, which moves the poses into the scene's frame.
        numbers: which frames; all where None. A frame whose pose ScanNet's tracker lost (infinite) is left out.

    Raises:
        MissingError: if a frame has no pose, or the scan no intrinsics.
        DataError: if one of these does not hold a matrix, or an image cannot be read.
    """
    wanted, folder = frame_numbers(scan) if numbers is None else list(numbers), _folder(scan)
    poses = {number: _matrix(folder / POSE / f"{number}.txt") for number in wanted}
    kept = [number for number in wanted if np.isfinite(poses[number]).all()]
    if not kept:
        return Frames(np.zeros((0, 4, 4)), np.zeros((0, 3, 3)), (0, 0), (), ())
    intrinsics_33 = _matrix(folder / INTRINSICS)[:3, :3]
    colour = tuple(_colour(folder, number) for number in kept)
    depth = tuple(path for number in kept if (path := folder / DEPTH / f"{number}.png").is_file())
    return Frames(
        np.stack([matrix_44 @ poses[number] for number in kept]),
        np.tile(intrinsics_33, (len(kept), 1, 1)),
        _size(colour[0]),
        colour,
        depth,
    )


def _colour(folder: Path, number: int) -> Path:
    """ScanNet writes JPEG; a lossless PNG is taken as well."""
    png = folder / COLOUR / f"{number}.png"
    return png if png.is_file() else png.with_suffix(".jpg")


def _matrix(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise MissingError(f"Expected a 4x4 matrix at {path}, found no such file.")
    words = path.read_text(encoding="utf-8", errors="replace").split()
    try:
        return np.array(words, np.float64).reshape(4, 4)
    except ValueError:
        raise DataError(f"Expected 16 numbers in {path}, found {len(words)} words.") from None


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise MissingError(f"Expected a colour image at {path}, found none.") from None
    except UnidentifiedImageError:
        raise DataError(f"Expected an image in {path}, found a file that is none.") from None
