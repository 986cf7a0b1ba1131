"""Names of colours: the nearest of ten that people agree on."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

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
