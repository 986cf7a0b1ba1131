"""A room: its size, its colours, and the objects that stand in it without sharing space.

Frame: metres, the middle of the floor at the origin, z up. Shape suffixes: K candidate places, N placed objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.procedural.furniture import Kind, Size

Rng = np.random.Generator
Rgb = tuple[float, float, float]
Floats = NDArray[np.float64]

BACK_M = 0.2
"""Depth of the back of a couch, and more than that of a headboard."""

_GAP_M = 0.04
"""Air between two objects."""


class Placed(NamedTuple):
    """An object in its place."""

    kind: Kind
    size: Size
    position: Size
    """Middle of its bottom."""

    yaw: float
    """Radians, counter-clockwise; 0 has the front towards -y."""

    rgb: Rgb

    @property
    def extent(self) -> tuple[Floats, Floats]:
        """The low and the high corner of its axis-aligned box."""
        c, s = abs(np.cos(self.yaw)), abs(np.sin(self.yaw))
        w, d, h = self.size
        half = np.array([(c * w + s * d) / 2, (s * w + c * d) / 2])
        middle = np.array(self.position[:2])
        bottom = self.position[2]
        return np.array([*(middle - half), bottom]), np.array([*(middle + half), bottom + h])


@dataclass
class Room:
    """A room and what is in it."""

    size: Size
    scene_type: str
    wall_rgb: Rgb
    floor_rgb: Rgb
    objects: list[Placed] = field(default_factory=list)
    _taken: list[tuple[Floats, Floats]] = field(default_factory=list)
    """Boxes that nothing else may enter: the objects, grown by the air before a door or a picture."""

    def add(self, candidates: Sequence[Placed]) -> Placed | None:
        """Put the first candidate that fits in its place; None where none fits."""
        if not candidates:
            return None
        extents = [candidate.extent for candidate in candidates]
        low_K3, high_K3 = np.array([e[0] for e in extents]), np.array([e[1] for e in extents])
        reserved = [_reserved(candidate) for candidate in candidates]
        free_K = self._inside(low_K3, high_K3) & self._free(
            np.array([r[0] for r in reserved]), np.array([r[1] for r in reserved])
        )
        if not free_K.any():
            return None
        chosen = int(free_K.argmax())
        self.objects.append(candidates[chosen])
        self._taken.extend(_solids(candidates[chosen], *reserved[chosen]))
        return candidates[chosen]

    def _inside(self, low_K3: Floats, high_K3: Floats) -> NDArray[np.bool_]:
        half = np.array([self.size[0] / 2, self.size[1] / 2])
        fits = (low_K3[:, :2] >= -half - 1e-6).all(1) & (high_K3[:, :2] <= half + 1e-6).all(1)
        return np.asarray(fits & (high_K3[:, 2] < self.size[2]))

    def _free(self, low_K3: Floats, high_K3: Floats) -> NDArray[np.bool_]:
        if not self._taken:
            return np.ones(len(low_K3), dtype=bool)
        low_N3, high_N3 = np.array([low for low, _ in self._taken]), np.array([high for _, high in self._taken])
        apart_KN3 = (low_K3[:, None] >= high_N3[None]) | (high_K3[:, None] <= low_N3[None])
        return np.asarray(np.any(apart_KN3, axis=2).all(axis=1))


def _reserved(placed: Placed) -> tuple[Floats, Floats]:
    low, high = placed.extent
    low[:2] -= _GAP_M / 2
    high[:2] += _GAP_M / 2
    if placed.kind.place == "hung":
        reach = 0.75 if placed.kind.label == "door" else 0.3
        front = np.array([np.sin(placed.yaw), -np.cos(placed.yaw)]).round(6)
        low[:2] += np.minimum(front * reach, 0)
        high[:2] += np.maximum(front * reach, 0)
        low[2] -= 0.15
    return low, high


def _solids(placed: Placed, low: Floats, high: Floats) -> list[tuple[Floats, Floats]]:
    """What of an object keeps others out: all of its box, but over a bed or a couch only the back."""
    surface = placed.kind.surface
    if not 0 < surface < 1:
        return [(low, high)]
    top = np.array([*high[:2], placed.position[2] + surface * placed.size[2]])
    behind = np.array([-np.sin(placed.yaw), np.cos(placed.yaw)]).round(6) * (placed.size[1] - BACK_M)
    back_low, back_high = low.copy(), high.copy()
    back_low[:2] += np.maximum(behind, 0)
    back_high[:2] += np.minimum(behind, 0)
    return [(low, top), (back_low, back_high)]


def overlap(a: Placed, b: Placed) -> bool:
    """Whether two objects share space; touching is not sharing, and a pillow may lie before a headboard."""
    pairs = ((p, q) for p in _solids(a, *a.extent) for q in _solids(b, *b.extent))
    return any(float(np.min(np.minimum(p[1], q[1]) - np.maximum(p[0], q[0]))) > 1e-6 for p, q in pairs)
