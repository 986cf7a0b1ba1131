"""The coloured vertices of a PLY file, whose header is checked before it is believed.

Shape suffixes: P points.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from plyfile import PlyData, PlyParseError

from r1pipe.errors import DataError, MissingError
from r1pipe.scenes.colours import as_bytes

_SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_MAX_HEADER = 65_536
_FIELDS = ("x", "y", "z", "red", "green", "blue")


class Vertices(NamedTuple):
    """A mesh's vertices, in the frame of the file."""

    xyz: NDArray[np.float64]
    """`(P, 3)`, metres."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""


def read_vertices(path: Path) -> Vertices:
    """Read positions and colours of a binary or ASCII PLY file; faces are skipped.

    Raises:
        MissingError: if there is no such file.
        DataError: if the header promises more than the file holds, a property is missing, a coordinate is not finite,
            or a colour is no number of 0..255.
    """
    if not path.is_file():
        raise MissingError(f"Expected a PLY file at {path}, found none.")
    _check_size(path)
    try:
        # Triangles alone: with a known length the face list is mapped, not parsed (0.5 ms against 205 ms).
        ply = PlyData.read(str(path), known_list_len={"face": {"vertex_indices": 3}} if _has_faces(path) else {})
    except PlyParseError as error:
        raise DataError(f"Expected a PLY file of vertices and triangles at {path}, found: {error}.") from None
    return _vertices(ply["vertex"].data, path)


def _vertices(data: NDArray[np.void], path: Path) -> Vertices:
    missing = [name for name in _FIELDS if name not in (data.dtype.names or ())]
    if missing or len(data) == 0:
        raise DataError(
            f"Expected vertices with {' '.join(_FIELDS)} in {path}, found {len(data)} vertices without {missing}."
        )
    xyz_P3 = np.stack([data[name] for name in "xyz"], axis=1).astype(np.float64)
    broken = ~np.isfinite(xyz_P3).all(axis=1)
    if broken.any():
        raise DataError(
            f"Expected finite coordinates in {path}, found {broken.sum()} vertices that are not, "
            f"the first at row {broken.argmax()}."
        )
    return Vertices(xyz_P3, as_bytes(np.stack([data[name] for name in _FIELDS[3:]], axis=1), f"{path}"))


def _header(path: Path) -> tuple[list[list[str]], int]:
    """The words of each header line, and the header's length in bytes."""
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    text, marker, rest = head.partition(b"end_header")
    if not head.startswith(b"ply") or not marker:
        raise DataError(f"Expected a PLY header in {path}, found none in its first {len(head)} bytes.")
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()]
    return [line for line in lines if line], len(text) + len(marker) + len(rest.partition(b"\n")[1])


def _has_faces(path: Path) -> bool:
    lines, _ = _header(path)
    return any(line[:2] == ["element", "face"] for line in lines) and any("vertex_indices" in line for line in lines)


def _check_size(path: Path) -> None:
    """Compare what the header promises with what the file holds, before any memory is taken for it."""
    lines, start = _header(path)
    ascii_text = ["format", "ascii", "1.0"] in lines
    expected, count = start, 0
    for line in lines:
        if line[0] == "element":
            count = _count(line, path)
        elif line[0] == "property":
            # A list holds its length at least, an ASCII value a digit and a space.
            expected += count * (2 if ascii_text else _SIZES.get(line[1], 1))
    found = path.stat().st_size
    # The last value of an ASCII file may end without a line break.
    if found + ascii_text < expected:
        raise DataError(f"Expected at least {expected} bytes in {path}, as its header says, found {found}.")


def _count(line: list[str], path: Path) -> int:
    if len(line) != 3 or not line[2].isdecimal():
        raise DataError(f"Expected 'element <name> <count>' in the header of {path}, found {' '.join(line)!r}.")
    return int(line[2])
