"""Where the candidate views of a scene are taken from: a ring at eye height, one from the top, real frames' cameras.

Every scene gets the same number of candidates, `num_candidates`, so that packs have one shape.

Shape suffixes: V views, P points.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from r1pipe.geometry import FloatArray
from r1pipe.params.scenes import Render
from r1pipe.scenes.scene import Scene
from r1pipe.views.cameras import Cameras, join, look_at, pinhole

CONTENT_HEIGHT = (0.15, 1.6)
"""Metres above the floor between which things are taken for content: no carpet, no lamp at the ceiling."""

CONTENT_REACH = 0.9
"""Share of the way to the walls within which they are, so that walls are not content. Annotations play no part: a new scan
has none, and its views must be taken as those of training were."""

RING_REACH = 0.7
"""How far towards the walls the ring goes, as a share of the way from the room's centre."""

CORNER_REACH = 0.8
"""The same for the cameras that stand in for missing frames."""

CLEARANCE = 0.3
"""Metres that a camera keeps from every point: inside a cupboard it would see one splat."""

TOP_CUT = 2.0
"""Metres above the floor where the top view begins to see: below any ceiling, above most furniture."""

_PLACEMENT_POINTS = 5_000
"""Points that decide where cameras stand; more would not move them."""


class Candidates(NamedTuple):
    """The cameras of a scene's candidate views."""

    cameras: Cameras

    frame: NDArray[np.intp]
    """`(V,)`, the real frame that a camera is taken from; -1 for a camera of our own."""


def num_candidates(params: Render) -> int:
    """How many views every scene has: the ring, the top view, and as many frames as may join; or frames alone."""
    return params.max_frames + (0 if params.source == "frames" else params.num_ring + 1)


def candidates(scene: Scene, params: Render, frames: Cameras | None = None) -> Candidates:
    """The ring, the top view, then the real frames that lie farthest apart; corner cameras stand in for missing frames.

    Frames lend pose, focal length and optical centre (`Cameras.fitted`). With the source `frames` they, and what stands in
    for them, are all. Nothing is random.
    """
    step = max(len(scene.xyz) // _PLACEMENT_POINTS, 1)
    xyz_P3 = scene.xyz[::step].astype(np.float64)
    content_P3 = _content(xyz_P3)
    used = min(0 if frames is None else len(frames), params.max_frames)
    missing = params.max_frames - used
    groups = []
    if params.source != "frames":
        groups += [_inside(xyz_P3, content_P3, _circle(params.num_ring) * RING_REACH, params), _top(xyz_P3, params)]
    frame_V = np.full(num_candidates(params), -1, np.intp)
    if frames is not None and used:
        taken = _apart(frames.poses, used)
        frame_V[sum(map(len, groups)) :][:used] = taken
        groups.append(frames.take(taken).fitted(params.size))
    if missing:
        groups.append(_inside(xyz_P3, content_P3, _corners(missing) * CORNER_REACH, params))
    return Candidates(join(*groups), frame_V)


def _apart(poses_V44: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """`count` poses far from each other, in order: the first, then always the one farthest from those taken.

    A scanner dwells: equal steps in time would take the same view again and again. The distance of two poses is that of their
    positions plus the angle between their orientations, a radian counting as a metre.
    """
    position_V3, rotation_V33 = poses_V44[:, :3, 3], poses_V44[:, :3, :3]
    taken, nearest_V = [0], np.full(len(poses_V44), np.inf)
    while len(taken) < count:
        cosine_V = (np.einsum("vij,ij->v", rotation_V33, rotation_V33[taken[-1]]) - 1) / 2
        distance_V = np.linalg.norm(position_V3 - position_V3[taken[-1]], axis=1) + np.arccos(cosine_V.clip(-1, 1))
        nearest_V = np.minimum(nearest_V, distance_V)
        # One that is taken is never taken again, though all others may have its pose.
        nearest_V[taken] = -1
        taken.append(int(nearest_V.argmax()))
    return np.array(sorted(taken), dtype=np.intp)


def _content(xyz_P3: FloatArray) -> FloatArray:
    """The points worth looking at: furniture by where it is, or all points where there is none."""
    centre, half = _extent(xyz_P3)
    height_P = xyz_P3[:, 2] - (centre[2] - half[2])
    is_content_P = (np.abs(xyz_P3[:, :2] - centre[:2]) < CONTENT_REACH * half[:2]).all(axis=-1)
    is_content_P &= (height_P > CONTENT_HEIGHT[0]) & (height_P < CONTENT_HEIGHT[1])
    return xyz_P3[is_content_P] if is_content_P.any() else xyz_P3


def _circle(count: int) -> NDArray[np.float64]:
    """Directions `(V, 2)` all around, unit length."""
    angle_V = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angle_V), np.sin(angle_V)], axis=-1)


def _corners(count: int) -> NDArray[np.float64]:
    """Directions `(V, 2)` on the unit square, opposite corners first, then between them."""
    turn_V = np.array([0.0, 0.5, 0.25, 0.75])[np.arange(count) % 4] + np.arange(count) // 4 / (
        4 * (1 + (count - 1) // 4)
    )
    angle_V = (turn_V + 1 / 8) * 2 * np.pi
    direction_V2 = np.stack([np.cos(angle_V), np.sin(angle_V)], axis=-1)
    return np.asarray(direction_V2 / np.abs(direction_V2).max(axis=-1, keepdims=True))


def _extent(xyz_P3: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and half-size of the room, `(3,)` each; stray points outside a window do not stretch it."""
    low, high = np.percentile(xyz_P3, [1, 99], axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-3)


def _inside(xyz_P3: FloatArray, content_P3: FloatArray, offset_V2: FloatArray, params: Render) -> Cameras:
    """Cameras at eye height at these shares of the way to the walls, each looking at the content across the room."""
    centre, half = _extent(xyz_P3)
    eye_V2 = _free(xyz_P3, centre, centre[:2] + offset_V2 * half[:2], centre[2] - half[2] + params.eye_height)
    eyes_V3 = np.column_stack([eye_V2, np.full(len(eye_V2), centre[2] - half[2] + params.eye_height)])
    targets_V3 = np.stack([_across(content_P3, centre, offset) for offset in offset_V2])
    # Content right below the eye says nothing about where to look: keep the view from becoming a second top view.
    reach_V = np.linalg.norm(targets_V3[:, :2] - eyes_V3[:, :2], axis=-1)
    targets_V3[reach_V < 0.5] = [*centre[:2] - 0.01 * half[:2], centre[2] - half[2] + params.eye_height / 2]
    intrinsics = np.tile(pinhole(params.size, params.fov), (len(eyes_V3), 1, 1))
    return Cameras(look_at(eyes_V3, targets_V3), intrinsics, params.size)


def _across(content_P3: FloatArray, centre: FloatArray, offset: FloatArray) -> NDArray[np.float64]:
    """The median of the content in the half of the room away from `offset`, or of all of it where that half is empty."""
    is_far_P = (content_P3[:, :2] - centre[:2]) @ offset < 0
    return np.median(content_P3[is_far_P] if is_far_P.any() else content_P3, axis=0).astype(np.float64)


def _free(xyz_P3: FloatArray, centre: FloatArray, wanted_V2: FloatArray, height: float) -> NDArray[np.float64]:
    """Move each wanted position towards the centre until nothing is within `CLEARANCE` and the scan is below it.

    Where no such place lies on the way, the one with the most room around it is taken.
    """
    share_S11 = np.linspace(1, 0, 11)[:, None, None]
    tried_SV2 = centre[:2] + share_S11 * (wanted_V2 - centre[:2])
    tried_SV3 = np.concatenate([tried_SV2, np.full((*tried_SV2.shape[:2], 1), height)], axis=-1)
    space_SV = cKDTree(xyz_P3).query(tried_SV3)[0]
    below_SV = cKDTree(xyz_P3[:, :2]).query(tried_SV2)[0]
    # Off the scanned floor, space is worth nothing: an L-shaped room's ring passes through the neighbour's.
    worth_SV = np.where(below_SV < CLEARANCE, np.minimum(space_SV, CLEARANCE), -below_SV)
    return np.asarray(tried_SV2[worth_SV.argmax(axis=0), np.arange(len(wanted_V2))])


def _top(xyz_P3: FloatArray, params: Render) -> Cameras:
    """One camera straight above the room, whose near plane is `TOP_CUT` above the floor, so that no ceiling is in the way."""
    centre, half = _extent(xyz_P3)
    intrinsics = pinhole(params.size, params.fov)
    reach = half[:2] * 2 * intrinsics[[0, 1], [0, 1]] / params.size
    distance = float(reach.max())
    eye = np.array([[centre[0], centre[1], centre[2] - half[2] + TOP_CUT + distance]])
    return Cameras(look_at(eye, eye - [0, 0, 1]), intrinsics[None], params.size, np.array([distance]))
