"""The coloured vertices of a PLY file, whose header is checked before it is believed.

plyfile reads every element, and lists of unknown length in Python, minutes for a file of 200 MB; here only vertices are read.

Shape suffixes: P points.
"""

import io
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError, MissingError
from r1pipe.scenes.colours import as_bytes

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 65_536
_FIELDS = ("x", "y", "z", "red", "green", "blue")


class Vertices(NamedTuple):
    """A mesh's vertices, in the frame of the file."""

    xyz: NDArray[np.float64]
    """`(P, 3)`, metres."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""


class _Element(NamedTuple):
    name: str
    size: int
    fields: list[tuple[str, str]]
    """Name and NumPy type of each property, "list" for one whose length is in the file."""

    @property
    def has_lists(self) -> bool:
        return any(kind == "list" for _, kind in self.fields)

    def dtype(self, order: str) -> np.dtype[np.void]:
        return np.dtype([(name, order + kind) for name, kind in self.fields])


class _Header(NamedTuple):
    layout: str
    elements: list[_Element]
    length: int
    """Bytes."""


def read_vertices(path: Path) -> Vertices:
    """Read positions and colours of a PLY file; arguments and errors as in `parse_vertices`.

    Raises:
        MissingError: if there is no such file.
    """
    if not path.is_file():
        raise MissingError(f"Expected a PLY file at {path}, found none.")
    return parse_vertices(path.read_bytes(), str(path))


def parse_vertices(content: bytes, where: str, *, max_vertices: int | None = None) -> Vertices:
    """The positions and colours in the bytes of a binary (either endian) or ASCII PLY file; other elements are skipped.

    Raises:
        DataError: if the header promises more than the file holds or than `max_vertices`, a property is missing, a
            coordinate is not finite, or a colour is no number of 0..255. It calls the file `where`.
    """
    header = _header(content, where)
    _check_size(header, content, where)
    before, vertex = _vertex(header, where)
    if max_vertices is not None and vertex.size > max_vertices:
        raise DataError(f"Expected at most {max_vertices:,} points in {where}, found {vertex.size:,}.")
    if header.layout == "ascii":
        rows = _ascii(content[header.length :], vertex, skip=sum(element.size for element in before), where=where)
    else:
        dtype, order = vertex.dtype(_ORDERS[header.layout]), _ORDERS[header.layout]
        offset = header.length + sum(element.size * element.dtype(order).itemsize for element in before)
        rows = np.frombuffer(content, dtype, count=vertex.size, offset=offset)
    return _vertices(rows, where)


def _vertices(rows: NDArray[np.void], where: str) -> Vertices:
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused with the others
        xyz_P3 = np.stack([rows[name] for name in "xyz"], axis=1).astype(np.float64)
    broken = ~np.isfinite(xyz_P3).all(axis=1)
    if broken.any():
        raise DataError(
            f"Expected finite coordinates in {where}, found {broken.sum()} vertices that are not, "
            f"the first at row {broken.argmax()}."
        )
    return Vertices(xyz_P3, as_bytes(np.stack([rows[name] for name in _FIELDS[3:]], axis=1), where))


def _vertex(header: _Header, where: str) -> tuple[list[_Element], _Element]:
    """The elements before the vertices, and the vertices."""
    names = [element.name for element in header.elements]
    found = header.elements[names.index("vertex")] if "vertex" in names else _Element("vertex", 0, [])
    fields = [name for name, _ in found.fields]
    missing = [name for name in _FIELDS if name not in fields]
    if missing or found.size == 0:
        raise DataError(
            f"Expected vertices with {' '.join(_FIELDS)} in {where}, found {found.size} vertices without {missing}."
        )
    before = header.elements[: names.index("vertex")]
    if found.has_lists or len(set(fields)) < len(fields) or any(element.has_lists for element in before):
        raise DataError(
            f"Expected numbers of fixed size up to the last vertex in {where}, found lists or a name twice."
        )
    return before, found


def _ascii(text: bytes, vertex: _Element, *, skip: int, where: str) -> NDArray[np.void]:
    lines = islice(io.BytesIO(text), skip, skip + vertex.size)
    try:
        rows: NDArray[np.void] = np.loadtxt(lines, vertex.dtype("="), comments=None, ndmin=1)
    except ValueError as error:
        raise DataError(f"Expected a line of numbers for each vertex in {where}, found another: {error}.") from None
    if len(rows) != vertex.size:
        raise DataError(f"Expected {vertex.size} lines of vertices in {where}, found {len(rows)}.")
    return rows


def _header(content: bytes, where: str) -> _Header:
    head = content[:_MAX_HEADER]
    line_end = b"\r\n" if head.startswith(b"ply\r\n") else b"\n"
    text, marker, _ = head.partition(line_end + b"end_header" + line_end)
    lines = [line.split() for line in text.decode("ascii", "replace").splitlines()]
    if not marker or not head.startswith(b"ply" + line_end):
        raise DataError(f"Expected a PLY header in {where}, found none in its first {len(head)} bytes.")
    layouts = [line[1] for line in lines if line[:1] == ["format"] and line[2:] == ["1.0"] and line[1] in _ORDERS]
    if len(layouts) != 1:
        raise DataError(
            f"Expected one format of {' '.join(_ORDERS)}, version 1.0, in the header of {where}, found none."
        )
    return _Header(layouts[0], _elements(lines, where), len(text) + len(marker))


def _elements(lines: list[list[str]], where: str) -> list[_Element]:
    elements: list[_Element] = []
    for line in lines:
        if line[:1] == ["element"]:
            elements.append(_Element(*_element(line, where), []))
        elif line[:1] == ["property"]:
            kind = (
                "list" if line[1:2] == ["list"] and len(line) == 5 else _TYPES.get(line[1]) if len(line) == 3 else None
            )
            if kind is None or not elements:
                raise DataError(
                    f"Expected 'property <type> <name>' below an element in the header of {where}, found {_said(line)}."
                )
            elements[-1].fields.append((line[-1], kind))
    return elements


def _element(line: list[str], where: str) -> tuple[str, int]:
    # More digits than these are no count, and would take Python long to read.
    if len(line) != 3 or not line[2].isascii() or not line[2].isdecimal() or len(line[2]) > 18:
        raise DataError(f"Expected 'element <name> <count>' in the header of {where}, found {_said(line)}.")
    return line[1], int(line[2])


def _said(line: list[str]) -> str:
    return repr(" ".join(line)[:80])


def _check_size(header: _Header, content: bytes, where: str) -> None:
    """Compare what the header promises with what the file holds, before any memory is taken for it."""
    ascii_text = header.layout == "ascii"
    expected = header.length
    for element in header.elements:
        # A list holds its length at least, an ASCII value a digit and a space.
        sizes = [2 if ascii_text else 1 if kind == "list" else np.dtype(kind).itemsize for _, kind in element.fields]
        expected += element.size * sum(sizes)
    # The last value of an ASCII file may end without a line break.
    if len(content) + ascii_text < expected:
        raise DataError(f"Expected at least {expected} bytes in {where}, as its header says, found {len(content)}.")
