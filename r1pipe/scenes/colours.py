"""Colours as bytes, and their names: the nearest of ten that people agree on."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from r1pipe.errors import DataError

NAMED: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (195, 45, 45),
        "orange": (240, 140, 35),
        "yellow": (240, 220, 65),
        "green": (50, 150, 65),
        "blue": (50, 85, 195),
        "purple": (135, 55, 165),
        "white": (225, 225, 225),
        "black": (40, 40, 40),
        "gray": (130, 130, 130),
        "brown": (110, 70, 40),
    }
)
"""What each name looks like, sRGB 0..255."""

_NAMES = tuple(NAMED)
_RGB_C3 = np.array(list(NAMED.values()), dtype=np.float64)


def as_bytes(rgb_P3: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    """Colours of a file as 0..255; of fractions none of which is above 1, 1 is full.

    Raises:
        DataError: if a colour is no number of 0..255.
    """
    if rgb_P3.dtype == np.uint8:
        return rgb_P3.astype(np.uint8)
    values_P3 = rgb_P3.astype(np.float64)
    wrong_P = ~((values_P3 >= 0) & (values_P3 <= 255)).all(axis=1)
    if wrong_P.any():
        raise DataError(
            f"Expected colours of 0..255 in {where}, found others in {wrong_P.sum():,} of {len(rgb_P3):,} points, "
            f"first {values_P3[wrong_P.argmax()].tolist()}."
        )
    # Half of the tools that write float colours mean 0..1.
    scale = 255.0 if rgb_P3.dtype.kind == "f" and values_P3.max(initial=0) <= 1 else 1.0
    return np.asarray(np.rint(values_P3 * scale), np.uint8)


def colour_name(rgb: ArrayLike) -> str:
    """The name of the nearest colour of `NAMED` to `(3,)` sRGB 0..255, by Euclidean distance.

    >>> colour_name((200, 50, 40))
    'red'
    """
    return _NAMES[int(_distances(rgb).argmin())]


def colour_margin(rgb: ArrayLike) -> float:
    """How much farther the second nearest named colour is than the nearest: small means hard to name."""
    nearest, second = np.sort(_distances(rgb))[:2]
    return float(second - nearest)


def _distances(rgb: ArrayLike) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    distance: np.ndarray[tuple[int], np.dtype[np.float64]] = np.linalg.norm(
        _RGB_C3 - np.asarray(rgb, dtype=np.float64), axis=1
    )
    return distance
