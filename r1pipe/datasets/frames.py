"""The RGB-D frames of a scan, as ScanNet's exporter writes them.

In the scan's folder, or in `frames/` below it, numbers with or without zeros in front: `color/<n>.jpg`, `depth/<n>.png`
(millimetres), `pose/<n>.txt` (camera to world, in the frame of the mesh), `intrinsic/intrinsic_color.txt`.
Shape suffixes: V frames, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import FloatArray

COLOUR, DEPTH, POSE = "color", "depth", "pose"
INTRINSICS = "intrinsic/intrinsic_color.txt"
OFF_CENTRE = 0.15
"""How far, as a share of a picture's side, a lens may point past its middle. A picture that was resized while its intrinsics
were not is off by a quarter and more; ScanNet's own cameras by 2 %."""


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

    left_out: tuple[str, ...] = ()
    """Frames that say nothing, each as a clause that names it: a lost pose, a picture that is missing, damaged or resized."""


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
        paths += [_colour(folder, number), _numbered(folder / POSE, number, ".txt")]
        depth = _numbered(folder / DEPTH, number, ".png")
        paths += [depth] if depth.is_file() else []
    return paths


def read_frames(scan: Path, matrix_44: FloatArray, numbers: Sequence[int] | None = None) -> Frames:
    """The frames of a scan folder; none where it has none.

    Args:
        scan: the scan's folder.
        matrix_44: the scan's alignment, which moves the poses into the scene's frame.
        numbers: which frames; all where None. One that says nothing is left out, and named in `left_out`: its pose is lost
            (ScanNet's tracker writes infinities), or its picture is missing, damaged or of another size than its lens says.

    Raises:
        MissingError: if a frame has no pose, or the scan no intrinsics.
        DataError: if one of these does not hold a matrix.
    """
    wanted, folder = frame_numbers(scan) if numbers is None else list(numbers), _folder(scan)
    if not wanted:
        return Frames(np.zeros((0, 4, 4)), np.zeros((0, 3, 3)), (0, 0), (), ())
    poses = {number: _matrix(_numbered(folder / POSE, number, ".txt")) for number in wanted}
    intrinsics_33 = _matrix(folder / INTRINSICS)[:3, :3]
    faults = {number: _fault(poses[number], _colour(folder, number), intrinsics_33) for number in wanted}
    left_out = tuple(f"frame {number}: {fault}" for number, fault in faults.items() if fault is not None)
    kept = [number for number in wanted if faults[number] is None]
    if not kept:
        return Frames(np.zeros((0, 4, 4)), np.zeros((0, 3, 3)), (0, 0), (), (), left_out)
    colour = tuple(_colour(folder, number) for number in kept)
    depth = tuple(path for number in kept if (path := _numbered(folder / DEPTH, number, ".png")).is_file())
    return Frames(
        np.stack([matrix_44 @ poses[number] for number in kept]),
        np.tile(intrinsics_33, (len(kept), 1, 1)),
        _size(colour[0]),
        colour,
        depth,
        left_out,
    )


def _fault(pose_44: FloatArray, picture: Path, intrinsics_33: FloatArray) -> str | None:
    """What makes a frame useless, as a clause; None where nothing does."""
    if not np.isfinite(pose_44).all():
        return "its pose is lost"
    if not picture.is_file():
        return "its picture is missing"
    try:
        width, height = _size(picture)
    except DataError:
        return f"{picture.name} is damaged"
    centre_u, centre_v = intrinsics_33[0, 2], intrinsics_33[1, 2]
    far_u, far_v = abs(centre_u - (width - 1) / 2) / width, abs(centre_v - (height - 1) / 2) / height
    if max(far_u, far_v) > OFF_CENTRE:
        return (
            f"{picture.name} is {width}x{height}, its lens one of about {2 * centre_u + 1:.0f}x{2 * centre_v + 1:.0f}"
        )
    return None


def _colour(folder: Path, number: int) -> Path:
    """ScanNet writes JPEG; a lossless PNG is taken as well."""
    png = _numbered(folder / COLOUR, number, ".png")
    return png if png.is_file() else _numbered(folder / COLOUR, number, ".jpg")


def _numbered(folder: Path, number: int, suffix: str) -> Path:
    """The file of a frame, with zeros in front of its number where it is written so."""
    plain = folder / f"{number}{suffix}"
    padded = (folder / f"{number:0{digits}}{suffix}" for digits in (6, 5, 4, 3))
    return next((path for path in (plain, *padded) if path.is_file()), plain)


def _matrix(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise MissingError(f"Expected a 4x4 matrix at {path}, found no such file.")
    words = path.read_text(encoding="utf-8", errors="replace").split()
    try:
        return np.array(words, np.float64).reshape(4, 4)
    except ValueError:
        raise DataError(f"Expected 16 numbers in {path}, found {len(words)} words.") from None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture to read; one that does not load is an error, whenever that shows."""
    try:
        with Image.open(path) as image:
            yield image
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow's PNG reader raises SyntaxError
        raise DataError(f"Expected an image in {path}, found one that does not load: {error}.") from None


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a whole picture: a JPEG is read to its end, at an eighth of its size, which is quick."""
    with _opened(path) as image:
        size = image.size
        image.draft("RGB", (1, 1))
        image.load()
    return size


def photograph(path: Path, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A frame's picture as `Cameras.fitted` has its camera: the same width, square pixels, rows cut or black alike.

    Args:
        path: the colour image.
        size: width and height, pixels.

    Returns:
        The picture `(H, W, 3)`, and which of its rows `(H,)` the frame shows.

    Raises:
        DataError: if it is no image.
    """
    width, height = size
    with _opened(path) as image:
        scale = width / image.width
        # Rows of the frame from the first to the last that the picture shows, and where they stand in it.
        above = (height - image.height * scale) / 2
        first, last = max(0, int(np.ceil(above - 1e-6))), min(height, int(np.floor(height - above + 1e-6)))
        box = (0, (first - above) / scale, image.width, min((last - above) / scale, image.height))
        shown = image.convert("RGB").resize((width, last - first), Image.Resampling.BILINEAR, box)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[first:last] = np.asarray(shown)
    rows = np.arange(height)
    return picture, (rows >= first) & (rows < last)
