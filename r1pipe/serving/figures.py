"""Pictures of a room for the page: the cloud with what is drawn in it, and what its cameras saw.

Shape suffixes: P points, V views, H, W pixels. Frame: metres, z up.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from r1pipe.datasets.sample import Pose
from r1pipe.geometry import EDGES, Box
from r1pipe.scenes.graph import ahead
from r1pipe.scenes.scene import Scene
from r1pipe.views.cameras import Cameras
from r1pipe.views.renderer import NOTHING, render

MAX_POINTS = 30_000
"""Points that a browser turns smoothly."""

DENSITY = 380.0
"""A point's size in pixels is this over the root of their number, so that sparse clouds look as solid as dense ones."""

CUT = 0.92
"""Share of the room's height that is shown: one looks in from above."""

EMPTY = (226, 229, 233)
"""The colour of a photograph's pixels that no point covers: black would look like a thing."""

FRUSTUM = 0.35
"""Metres from a drawn camera to the corners of its picture."""

Role = Literal["answer", "named", "detected"]
COLOURS: dict[str, str] = {
    "answer": "#d6336c", "named": "#1c7ed6", "detected": "#868e96", "view": "#0d8f74", "you": "#e8590c",
}  # fmt: skip

INK = "#1c1f24"
_WIDTHS: dict[Role, int] = {"answer": 8, "named": 5, "detected": 2}
_RAYS = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]


class Mark(NamedTuple):
    """A box to draw."""

    name: str
    box: Box
    role: Role
    """Whether the answer points at it, somebody named it, or it was merely detected."""


def room(
    scene: Scene, marks: Sequence[Mark] = (), *, views: Cameras | None = None, pose: Pose | None = None
) -> go.Figure:
    """The room in 3D, open at its top, with boxes, cameras and the place of whoever asks."""
    xyz_P3, rgb_P3 = _shown(scene)
    points = go.Scatter3d(
        **dict(zip("xyz", xyz_P3.T, strict=True)),
        mode="markers",
        marker={
            "size": float(np.clip(DENSITY / np.sqrt(len(xyz_P3)), 2, 6)),
            "color": [f"rgb({r},{g},{b})" for r, g, b in rgb_P3.tolist()],
        },
        hoverinfo="skip",
    )
    traces = [points, *map(_edges, marks), *_labels(marks)]
    if views is not None:
        traces.append(_frusta(views))
    if pose is not None:
        traces.append(_arrow(pose))
    # By the cloud alone: neither a camera above the ceiling nor a box that the model made up may make the room small.
    ranges = zip("xyz", xyz_P3.min(axis=0) - 0.1, xyz_P3.max(axis=0) + 0.1, strict=True)
    axes = {f"{name}axis": {"visible": False, "range": [float(low), float(high)]} for name, low, high in ranges}
    layout = go.Layout(
        scene={"aspectmode": "data", "dragmode": "turntable", **axes},
        scene_camera={"eye": {"x": 0.55, "y": -0.93, "z": 1.75}, "center": {"x": 0, "y": 0, "z": -0.15}},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        uirevision=scene.id,  # the camera stays where it was turned to
    )
    return go.Figure(traces, layout)


def _shown(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    low, high = np.percentile(scene.xyz[:, 2], [0.5, 99.5])
    keep = np.flatnonzero(scene.xyz[:, 2] <= low + CUT * (high - low))
    if len(keep) > MAX_POINTS:
        keep = np.sort(np.random.default_rng(0).choice(keep, MAX_POINTS, replace=False))
    return scene.xyz[keep].round(3), scene.rgb[keep]


def _segments(vertices: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Edges between vertices as one line, broken after each."""
    gap = np.full(3, np.nan)
    return np.array([point for a, b in pairs for point in (vertices[a], vertices[b], gap)])


def _lines(points: NDArray[np.float64], name: str, colour: str, width: int) -> go.Scatter3d:
    axes = dict(zip("xyz", points.T, strict=True))
    return go.Scatter3d(**axes, mode="lines", line={"width": width, "color": colour}, name=name, hoverinfo="name")


def _edges(mark: Mark) -> go.Scatter3d:
    """The twelve edges of a box."""
    return _lines(_segments(mark.box.corners, EDGES), mark.name, COLOURS[mark.role], _WIDTHS[mark.role])


def _labels(marks: Sequence[Mark]) -> list[go.Scatter3d]:
    """The boxes' names above them, where there are any."""
    if not marks:
        return []
    tops = np.array([mark.box.corners.max(axis=0) for mark in marks])
    middles = np.array([mark.box.centre for mark in marks])
    return [
        go.Scatter3d(
            x=middles[:, 0],
            y=middles[:, 1],
            z=tops[:, 2],
            mode="text",
            text=[mark.name for mark in marks],
            textposition="top center",
            textfont={"color": INK, "size": 13, "weight": 700},
            hoverinfo="skip",
        )
    ]


def _frusta(cameras: Cameras) -> go.Scatter3d:
    """Where the cameras stand and look: a pyramid each, from the centre to its picture's corners."""
    width, height = cameras.size
    pixels = np.array([(0, 0, 1), (width, 0, 1), (width, height, 1), (0, height, 1)], np.float64)
    pyramids = []
    for pose, intrinsics in zip(cameras.poses, cameras.intrinsics, strict=True):
        corners = FRUSTUM * pixels @ np.linalg.inv(intrinsics).T
        local = np.vstack([np.zeros(3), corners])
        pyramids.append(_segments(local @ pose[:3, :3].T + pose[:3, 3], _RAYS))
    return _lines(np.concatenate(pyramids), "chosen views", COLOURS["view"], 4)


def _arrow(pose: Pose) -> go.Scatter3d:
    """Where somebody stands and looks, a little above the floor."""
    forward = np.array([*ahead(pose.rotation), 0.0])
    left = np.array([-forward[1], forward[0], 0.0])
    foot = np.array(pose.position) + np.array([0, 0, 0.1])
    tip = foot + 0.7 * forward
    vertices = np.array([foot, tip, tip - 0.25 * forward + 0.15 * left, tip - 0.25 * forward - 0.15 * left])
    return _lines(_segments(vertices, [(0, 1), (1, 2), (1, 3)]), "you", COLOURS["you"], 10)


def photographs(
    scene: Scene,
    cameras: Cameras,
    marks: Sequence[Mark] = (),
    taken: Mapping[int, Image.Image] = MappingProxyType({}),
    *,
    radius: int,
) -> list[Image.Image]:
    """What the cameras see, or saw where a picture was `taken`, with boxes drawn in it.

    A point is a square of `2 * radius + 1` pixels.
    """
    seen = render(scene.xyz, scene.rgb, cameras, radius=radius, fill_holes=True)
    seen.rgb[seen.index == NOTHING] = EMPTY
    pictures = [taken.get(row) or Image.fromarray(rgb_HW3) for row, rgb_HW3 in enumerate(seen.rgb)]
    for mark in marks:
        uv_V82, depth_V8 = cameras.project(mark.box.corners)
        for picture, uv_82, depth_8 in zip(pictures, uv_V82, depth_V8, strict=True):
            draw = ImageDraw.Draw(picture)
            for a, b in EDGES:
                if min(depth_8[a], depth_8[b]) > cameras.near.min():
                    draw.line([*uv_82[a], *uv_82[b]], COLOURS[mark.role], 2)
    return pictures
