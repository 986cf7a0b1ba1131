"""A scan of a room: what a scanner that walks through it sees, with holes, noise and a frame of its own.

Shape suffixes: P points, V positions on the scanner's path.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r1pipe.geometry import Box, FloatArray, transform
from r1pipe.procedural.furniture import KIND
from r1pipe.procedural.room import Rng, Room
from r1pipe.procedural.surfaces import Surface, sample
from r1pipe.scenes.scene import NO_INSTANCE, Scene, SceneObject
from r1pipe.views.cameras import Cameras, look_at, pinhole
from r1pipe.views.renderer import Backend, Rendering, render

MIN_POINTS = 30
"""An object seen with fewer points than this is taken out of the room: its annotations could not be trusted."""

_PATH_SIZE = (112, 84)
_PATH_FOV = 80.0
_PATH_LENGTH = 16
_EYE_M = (1.35, 1.75)
_SPLAT = 2
"""Half-width in pixels of a point on the path's z-buffers: wide enough to close the gaps between points."""

_HIDDEN_M = 0.08
"""A point this far behind the z-buffer is hidden."""

_BACKEND: Backend = "numba"
"""Rooms are made in a process a core; each would take a share of a GPU's memory for pictures this small."""

_NOISE_M = 0.004
_STRAY_SHARE = 0.002
"""Points of no surface, as every scan has them."""


@dataclass(frozen=True)
class Frames:
    """RGB-D frames along the path."""

    cameras: Cameras
    """In the scan's own, unaligned frame."""

    rendering: Rendering


@dataclass(frozen=True)
class Scan:
    """What ScanNet's files hold of a room."""

    id: str
    scene_type: str
    alignment: NDArray[np.float64]
    """`(4, 4)`, from the scan's frame to the scene's."""

    xyz: NDArray[np.float32]
    """`(P, 3)`, metres, the scan's own frame."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""

    segment: NDArray[np.int32]
    """`(P,)`, over-segmentation: one a surface part."""

    instance: NDArray[np.int32]
    """`(P,)`, object ids, -1 for stray points."""

    labels: tuple[str, ...]
    """Raw label of each object id."""

    frames: Frames | None

    def scene(self) -> Scene:
        """The aligned scene, derived exactly as a reader of the files derives it."""
        xyz_P3 = transform(self.xyz.astype(np.float64), self.alignment).astype(np.float32)
        objects = tuple(
            SceneObject(number, label, nyu40(label), Box.around(xyz_P3[self.instance == number]))
            for number, label in enumerate(self.labels)
        )
        return Scene(self.id, xyz_P3, self.rgb, self.instance, objects)


def nyu40(label: str) -> int:
    """The NYU40 class of a raw label that the generator writes."""
    return {"wall": 1, "floor": 2}.get(label) or KIND[label].nyu40


def scan(
    room: Room, scene_id: str, rng: Rng, *, points_per_m2: float, num_frames: int, frame_size: tuple[int, int]
) -> Scan:
    """Walk through a room, keep what was seen, and write it down in a frame of the scanner's own."""
    surface = sample(room, points_per_m2, rng)
    path = walk(room, rng)
    seen_P = visible(surface.xyz, surface.rgb, path)
    counts = np.bincount(surface.owner[seen_P], minlength=len(surface.labels))
    # In no order, as annotators number what they come across: an id must not tell the class.
    kept = rng.permutation(np.flatnonzero(counts >= MIN_POINTS))
    there_P = np.isin(surface.owner, kept)
    alignment = random_alignment(rng)
    frames = _frames(surface, there_P, path, alignment, num_frames, frame_size)
    xyz_P3, rgb_P3, segment_P, owner_P = _noisy(surface, seen_P & there_P, room, rng)
    # Numbered anew without the gaps; the last entry serves the strays, whose owner is -1.
    new_id = np.full(len(surface.labels) + 1, NO_INSTANCE, dtype=np.int32)
    new_id[kept] = np.arange(len(kept))
    return Scan(
        id=scene_id,
        scene_type=room.scene_type,
        alignment=alignment,
        xyz=transform(xyz_P3, np.linalg.inv(alignment)).astype(np.float32),
        rgb=rgb_P3,
        segment=segment_P,
        instance=new_id[owner_P],
        labels=tuple(surface.labels[owner] for owner in kept),
        frames=frames,
    )


def walk(room: Room, rng: Rng) -> Cameras:
    """A loop through the room at the height of a hand-held scanner, looking across and down."""
    angle_V = np.linspace(0, 2 * np.pi, _PATH_LENGTH, endpoint=False) + rng.uniform(0, 2 * np.pi)
    half = np.array(room.size[:2]) / 2
    eyes = (
        np.stack([np.cos(angle_V), np.sin(angle_V)], axis=1) * (half - 0.4) * rng.uniform(0.7, 1.0, (_PATH_LENGTH, 1))
    )
    eyes_V3 = np.column_stack([_dodge(eyes, room), rng.uniform(*_EYE_M, _PATH_LENGTH)])
    across = -eyes_V3[:, :2] * rng.uniform(0.2, 0.9, (_PATH_LENGTH, 1)) + rng.normal(0, 0.4, (_PATH_LENGTH, 2))
    # Every other look goes along the walls: what stands against one is seen from its side only.
    across[1::2] = np.column_stack([np.cos(angle_V + 1.3), np.sin(angle_V + 1.3)])[1::2] * half
    targets_V3 = np.column_stack([across, rng.uniform(0.2, 0.9, _PATH_LENGTH)])
    intrinsics = np.repeat(pinhole(_PATH_SIZE, _PATH_FOV)[None], _PATH_LENGTH, axis=0)
    return Cameras(look_at(eyes_V3, targets_V3), intrinsics, _PATH_SIZE)


def _dodge(eyes_V2: NDArray[np.float64], room: Room) -> NDArray[np.float64]:
    """Towards the middle of the room until no eye is inside, or close before, anything as tall as a person's chest."""
    tall = [placed.extent for placed in room.objects if placed.extent[1][2] > 1.2 and placed.kind.place != "hung"]
    for low, high in tall:
        for _ in range(6):
            inside_V2 = (eyes_V2 > low[:2] - 0.3) & (eyes_V2 < high[:2] + 0.3)
            eyes_V2 = np.where(inside_V2.all(axis=1, keepdims=True), eyes_V2 * 0.8, eyes_V2)
    return eyes_V2


def visible(xyz_P3: FloatArray, rgb_P3: NDArray[np.uint8], cameras: Cameras) -> NDArray[np.bool_]:
    """`(P,)`: whether any camera sees a point, no farther behind its z-buffer than a surface is thick."""
    depth_VHW = render(xyz_P3, rgb_P3, cameras, radius=_SPLAT, backend=_BACKEND).depth
    seen_P = np.zeros(len(xyz_P3), dtype=bool)
    for view, depth_HW in enumerate(depth_VHW):
        # Only points that no camera before has seen: there are fewer with each.
        left = np.flatnonzero(~seen_P)
        uv_1P2, depth_1P = cameras.take(np.array([view])).project(xyz_P3[left])
        ahead = np.flatnonzero(depth_1P[0] > 0)
        column, row = np.floor(uv_1P2[0, ahead] + 0.5).T
        inside = (column >= 0) & (column < cameras.size[0]) & (row >= 0) & (row < cameras.size[1])
        surface = depth_HW[row[inside].astype(np.intp), column[inside].astype(np.intp)]
        close = depth_1P[0, ahead[inside]] < surface + _HIDDEN_M
        seen_P[left[ahead[inside][close]]] = True
    return seen_P


def random_alignment(rng: Rng) -> NDArray[np.float64]:
    """From a scanner's frame to the room's: a turn about z and a shift, in the six decimals that the file keeps."""
    angle = rng.uniform(-np.pi, np.pi)
    origin = np.array([*rng.uniform(2.5, 5.0, 2), rng.uniform(-0.05, 0.15)])
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    matrix[:3, 3] = -matrix[:3, :3] @ origin
    return np.asarray(matrix.round(6))


def _noisy(
    surface: Surface, keep_P: NDArray[np.bool_], room: Room, rng: Rng
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """The points kept, off their surface by a few millimetres, in no order, with strays (segment of their own, owner -1)."""
    xyz_P3 = surface.xyz[keep_P] + rng.normal(0, _NOISE_M, (int(keep_P.sum()), 3))
    num_stray = int(len(xyz_P3) * _STRAY_SHARE)
    half = np.array(room.size) * [0.5, 0.5, 1]
    stray_P3 = rng.uniform(half * [-1, -1, 0], half, (num_stray, 3))
    stray_rgb = rng.integers(40, 220, (num_stray, 3), dtype=np.uint8)
    num_segments = int(surface.segment.max()) + 1
    order = rng.permutation(len(xyz_P3) + num_stray)
    return (
        np.concatenate([xyz_P3, stray_P3])[order],
        np.concatenate([surface.rgb[keep_P], stray_rgb])[order],
        np.concatenate([surface.segment[keep_P], np.full(num_stray, num_segments, np.int32)])[order],
        np.concatenate([surface.owner[keep_P], np.full(num_stray, -1, np.int32)])[order],
    )


def _frames(
    surface: Surface,
    there_P: NDArray[np.bool_],
    path: Cameras,
    alignment: NDArray[np.float64],
    num_frames: int,
    frame_size: Sequence[int],
) -> Frames | None:
    """Pictures of what is there, taken at even steps of the path."""
    if num_frames == 0:
        return None
    rows = np.linspace(0, len(path), num_frames, endpoint=False).astype(np.intp)
    cameras = path.take(rows).fitted((frame_size[0], frame_size[1]))
    # As wide a splat on a picture of any size: gaps between points scale with it.
    radius = max(1, round(_SPLAT * frame_size[0] / _PATH_SIZE[0]))
    rendering = render(surface.xyz[there_P], surface.rgb[there_P], cameras, radius=radius, backend=_BACKEND)
    unaligned = Cameras(np.linalg.inv(alignment) @ cameras.poses, cameras.intrinsics, cameras.size, cameras.near)
    return Frames(unaligned, rendering)
