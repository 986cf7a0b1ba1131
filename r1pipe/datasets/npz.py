"""Arrays of a NumPy archive, whose headers are checked before they are believed."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError

Shape = Sequence[range]
"""The lengths that each axis may have: one, or those from 0 on."""

_NUMBERS = "bfiu"


def read_arrays(
    source: Path | IO[bytes], shapes: Mapping[str, Shape], where: str, *, max_bytes: int
) -> list[NDArray[np.generic]]:
    """Arrays of numbers or booleans from an `.npz` file, in the order of `shapes`; others are not read.

    Args:
        source: the file.
        shapes: each array's name, and the shape that it must have.
        where: what the sender calls the file.
        max_bytes: the largest array that memory is taken for.

    Raises:
        DataError: if the archive is damaged, or an array is absent, too large, of another shape or no numbers.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            _check_names(archive, list(shapes), where)
            return [_read(archive, key, shape, where, max_bytes) for key, shape in shapes.items()]
    except DataError:
        raise
    # zipfile raises RuntimeError for a password and for a compression that it does not know.
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
        raise DataError(f"Expected a NumPy archive in {where}, found one that does not read: {error}.") from None


def _check_names(archive: zipfile.ZipFile, keys: Sequence[str], where: str) -> None:
    found = archive.namelist()
    if any(f"{key}.npy" not in found for key in keys):
        raise DataError(f"Expected the arrays {' and '.join(keys)} in {where}, found {sorted(found)}.")


def _read(archive: zipfile.ZipFile, key: str, shape: Shape, where: str, max_bytes: int) -> NDArray[np.generic]:
    member = f"{key}.npy"
    if archive.getinfo(member).file_size > max_bytes:
        found = archive.getinfo(member).file_size
        raise DataError(f"Expected at most {max_bytes:,} bytes of {key} in {where}, found {found:,}.")
    with archive.open(member) as file:
        found_shape, dtype = _header(file)
    if len(found_shape) != len(shape) or any(n not in allowed for n, allowed in zip(found_shape, shape, strict=True)):
        raise DataError(f"Expected {key} of shape ({', '.join(map(_say, shape))}) in {where}, found {found_shape}.")
    if dtype.kind not in _NUMBERS:
        raise DataError(f"Expected numbers in {key} of {where}, found {dtype}.")
    with archive.open(member) as file:
        array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _say(lengths: range) -> str:
    """One length, or those from 0 on."""
    return f"{lengths[0]:,}" if len(lengths) == 1 else f"at most {lengths[-1]:,}"


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its array format is version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
