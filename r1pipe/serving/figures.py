"""Pictures of a room for the page: the cloud with boxes drawn in it, and what its cameras saw.

Shape suffixes: P points, V views, H, W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from r1pipe.geometry import Box
from r1pipe.scenes.scene import Scene

MAX_POINTS = 30_000
"""Points that a browser turns smoothly."""

SPARSE = 15_000
"""Points below which they are drawn larger."""

_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if (a ^ b) in (1, 2, 4)]


class Mark(NamedTuple):
    """A box to draw."""

    name: str
    box: Box
    answer: bool
    """Whether the answer points at it; the others were merely mentioned."""


def room(scene: Scene, marks: Sequence[Mark] = (), *, ceiling: bool = False) -> go.Figure:
    """The room in 3D; without `ceiling` its top is cut off, so that one looks in from above."""
    xyz_P3, rgb_P3 = _visible(scene, ceiling)
    colours = [f"rgb({r},{g},{b})" for r, g, b in rgb_P3.tolist()]
    points = go.Scatter3d(
        **dict(zip("xyz", xyz_P3.T, strict=True)),
        mode="markers",
        marker={"size": 2 if len(colours) > SPARSE else 3, "color": colours},
        hoverinfo="skip",
        showlegend=False,
    )
    axis = {"visible": False}
    layout = go.Layout(
        scene={"aspectmode": "data", "xaxis": axis, "yaxis": axis, "zaxis": axis, "dragmode": "turntable"},
        scene_camera={"eye": {"x": 1.0, "y": -1.2, "z": 1.4}},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"x": 0, "y": 1, "bgcolor": "rgba(255,255,255,0.7)"},
        uirevision=scene.id,
        height=560,
    )
    return go.Figure([points, *map(_edges, marks)], layout)


def _visible(scene: Scene, ceiling: bool) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    keep = np.arange(len(scene.xyz))
    if not ceiling:
        low, high = np.percentile(scene.xyz[:, 2], [0.5, 99.5])
        keep = np.flatnonzero(scene.xyz[:, 2] < low + 0.92 * (high - low))
    if len(keep) > MAX_POINTS:
        keep = np.sort(np.random.default_rng(0).choice(keep, MAX_POINTS, replace=False))
    return scene.xyz[keep].round(3), scene.rgb[keep]


def _edges(mark: Mark) -> go.Scatter3d:
    """The twelve edges of a box as one broken line."""
    corners = np.array(mark.box.centre) + _CORNERS * np.array(mark.box.size)
    gap = np.full(3, np.nan)
    line = np.array([point for a, b in _EDGES for point in (corners[a], corners[b], gap)])
    return go.Scatter3d(
        **dict(zip("xyz", line.T, strict=True)),
        mode="lines",
        line={"width": 7 if mark.answer else 5, "color": "#d6336c" if mark.answer else "#1c7ed6"},
        name=mark.name,
        hoverinfo="name",
    )
