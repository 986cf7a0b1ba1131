"""Surfaces: points on everything in a room that faces the air, before anybody has looked at it.

Shape suffixes: P points, F flat faces, S segments (one a part of an object).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.procedural.furniture import Part, Size
from r1pipe.procedural.room import Placed, Rng, Room

_FLAT_SHARE = 0.35
"""Walls and floor get this share of the density: ScanNet's decimated meshes are sparse where a surface is flat."""

_COLOUR_SIGMA = 6.0
"""Jitter of a point's sRGB; the light on a part varies by two thirds of it."""


@dataclass(frozen=True)
class Surface:
    """Points with their colours, and the segment and object that each belongs to."""

    xyz: NDArray[np.float64]
    """`(P, 3)`, metres, scene frame."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""

    segment: NDArray[np.int32]
    """`(P,)`, one a surface part, 0-based."""

    owner: NDArray[np.int32]
    """`(P,)`, index into `labels`."""

    labels: tuple[str, ...]
    """Four walls, the floor, then the objects of the room in order."""


class _Faces(NamedTuple):
    """Parallelograms: a corner, two edges; the colour and the segment of each."""

    corner: list[NDArray[np.float64]]
    edges: list[NDArray[np.float64]]
    rgb: list[NDArray[np.float64]]
    segment: list[int]


class _Cloud(NamedTuple):
    xyz: NDArray[np.float64]
    rgb: NDArray[np.float64]
    segment: NDArray[np.int32]


def sample(room: Room, points_per_m2: float, rng: Rng) -> Surface:
    """Points on all surfaces of a room, uniformly by area."""
    clouds = [_structure(room, points_per_m2 * _FLAT_SHARE, rng)]
    owner_of_segment = list(range(5))
    flat = _Faces([], [], [], [])
    for number, placed in enumerate(room.objects, 5):
        for part in placed.kind.parts(*placed.size):
            rgb = np.array(placed.rgb) * part.shade + rng.normal(0, _COLOUR_SIGMA * 2 / 3, 3)
            segment = len(owner_of_segment)
            owner_of_segment.append(number)
            if part.shape == "box":
                _add_box(flat, part, placed, rgb, segment)
            else:
                clouds.append(_round(part, placed, rgb, segment, points_per_m2, rng))
    clouds.append(_flat(flat, points_per_m2, rng))
    xyz_P3, rgb_P3, segment_P = (np.concatenate(arrays) for arrays in zip(*clouds, strict=True))
    rgb_P3 = rgb_P3 + rng.normal(0, _COLOUR_SIGMA, rgb_P3.shape)
    labels = ("wall",) * 4 + ("floor",) + tuple(placed.kind.label for placed in room.objects)
    owner_P = np.array(owner_of_segment, dtype=np.int32)[segment_P]
    return Surface(xyz_P3, np.clip(np.rint(rgb_P3), 0, 255).astype(np.uint8), segment_P, owner_P, labels)


def _structure(room: Room, density: float, rng: Rng) -> _Cloud:
    """Four walls and the floor, segments 0 to 4."""
    w, d, h = room.size
    faces = _Faces([], [], [], [])
    x, y, z = np.diag([w, d, h])
    low = np.array([-w / 2, -d / 2, 0.0])
    walls = ((low + y, x, 0.95), (low, y, 0.9), (low, x, 1.0), (low + x, y, 0.97))
    for segment, (corner, along, shade) in enumerate(walls):
        _add(faces, corner, along, z, np.array(room.wall_rgb) * shade, segment)
    _add(faces, low, x, y, np.array(room.floor_rgb, dtype=float), 4)
    return _flat(faces, density, rng)


def _add(
    faces: _Faces,
    corner: NDArray[np.float64],
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    rgb: NDArray[np.float64],
    segment: int,
) -> None:
    faces.corner.append(corner)
    faces.edges.append(np.stack([u, v]))
    faces.rgb.append(rgb)
    faces.segment.append(segment)


_LIGHT = {"top": 1.0, "front": 0.97, "back": 0.92, "left": 0.94, "right": 0.9}


def _add_box(faces: _Faces, part: Part, placed: Placed, rgb: NDArray[np.float64], segment: int) -> None:
    """The five faces of a box that can be seen from above."""
    turn = _turn(placed.yaw)
    w, d, h = part.size
    x, y, z = turn @ np.array([w, 0, 0]), turn @ np.array([0, d, 0]), np.array([0, 0, h])
    low = _move(np.array(part.centre), placed) - (x + y + z) / 2
    for side, corner, u, v in (
        ("top", low + z, x, y), ("front", low, x, z), ("back", low + y, x, z), ("left", low, y, z), ("right", low + x, y, z),
    ):  # fmt: skip
        _add(faces, corner, u, v, rgb * _LIGHT[side], segment)


def _flat(faces: _Faces, density: float, rng: Rng) -> _Cloud:
    corner_F3, edges_F23, rgb_F3 = np.array(faces.corner), np.array(faces.edges), np.array(faces.rgb)
    area_F = np.linalg.norm(np.cross(edges_F23[:, 0], edges_F23[:, 1]), axis=1)
    face_P = np.repeat(np.arange(len(area_F)), rng.poisson(area_F * density))
    along_P21 = rng.random((len(face_P), 2, 1))
    xyz_P3 = corner_F3[face_P] + (edges_F23[face_P] * along_P21).sum(axis=1)
    return _Cloud(xyz_P3, rgb_F3[face_P], np.array(faces.segment, dtype=np.int32)[face_P])


def _round(part: Part, placed: Placed, rgb: NDArray[np.float64], segment: int, density: float, rng: Rng) -> _Cloud:
    """Points on an upright cylinder (side and top) or on an ellipsoid (all of it, thinner towards the poles)."""
    w, d, h = part.size
    side = np.pi * (w + d) / 2 * h
    top = np.pi * w * d / 4
    count = int(rng.poisson((side + top) * density))
    angle = rng.uniform(0, 2 * np.pi, count)
    height = rng.uniform(-1, 1, count)
    if part.shape == "cylinder":
        on_top = rng.random(count) < top / (side + top)
        radius = np.where(on_top, np.sqrt(rng.random(count)), 1.0)
        height = np.where(on_top, 1.0, height)
    else:
        radius = np.sqrt(1 - height**2)
    local_P3 = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1) * np.array(part.size) / 2
    light_P1 = 0.95 + 0.05 * np.cos(angle[:, None])
    xyz_P3 = _move(local_P3 + np.array(part.centre), placed)
    return _Cloud(xyz_P3, rgb * light_P1, np.full(count, segment, dtype=np.int32))


def _turn(yaw: float) -> NDArray[np.float64]:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _move(xyz_P3: NDArray[np.float64], placed: Placed) -> NDArray[np.float64]:
    """From the object's frame to the scene's."""
    position: Size = placed.position
    return np.asarray(xyz_P3 @ _turn(placed.yaw).T + np.array(position))
