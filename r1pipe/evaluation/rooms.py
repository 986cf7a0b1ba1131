"""A room drawn for a page: its points seen from above a corner, and boxes as wire frames over them.

Shape suffixes: P points.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from r1pipe.geometry import EDGES, Box, FloatArray
from r1pipe.scenes.scene import Scene
from r1pipe.views.cameras import Cameras, look_at
from r1pipe.views.renderer import NOTHING, render

SIZE = (440, 330)
"""Width and height, pixels."""


class Pencil(NamedTuple):
    """How a box is drawn."""

    colour: str
    width: int
    """Pixels."""

    casing: int
    """Pixels of dark line that show around it, both sides together."""


TARGET, PREDICTED = Pencil("#ffb000", 5, 2), Pencil("#e8007d", 2, 0)
"""The thin line lies on the thick one where a predicted box fits; the page's legend has the same colours."""

CUT_HEIGHT = 2.1
"""Metres above the floor from which nothing is drawn: ceiling and lamps would hide the room."""

CUT_DEPTH = 0.25
"""Metres of the two near walls, and of what hangs there, that are not drawn."""

_CASING = "#14161a"
_PAPER = 255
_ELEVATION, _TURN = np.radians(50), np.radians(36)
"""Not 45 degrees: a box's far edges would lie behind its near ones."""

_DISTANCE = 2.0
"""Of the camera from the room's centre, in diagonals of the room: near enough for depth, far enough for little distortion."""

_FILL = 0.9


def draw_room(scene: Scene, targets: Sequence[Box], predicted: Sequence[Box]) -> NDArray[np.uint8]:
    """`(H, W, 3)`: the room without ceiling and near walls, with boxes over it.

    It is seen from the corner from which most of the first target shows, or of the first predicted box where there is none.
    """
    corners = [_Corner(scene, x, y) for x, y in product((-1, 1), repeat=2)]
    first = next(iter([*targets, *predicted]), None)
    best = corners[0] if first is None else max(corners, key=lambda corner: corner.num_inside(first))
    return best.draw([(box, TARGET) for box in targets] + [(box, PREDICTED) for box in predicted])


class _Corner:
    """The room from above one of its corners."""

    def __init__(self, scene: Scene, x: int, y: int) -> None:
        low, high = np.percentile(scene.xyz.astype(np.float64), [1, 99], axis=0)
        side = np.array([x, y])
        inwards_P2 = (np.where(side > 0, high[:2], low[:2]) - scene.xyz[:, :2]) * side
        kept_P = (scene.xyz[:, 2] < low[2] + CUT_HEIGHT) & (inwards_P2 > CUT_DEPTH).all(axis=1)
        self._xyz_P3 = scene.xyz[kept_P]
        self._camera = _camera(self._xyz_P3.astype(np.float64), (low + high) / 2, high - low, side)
        self._seen = render(self._xyz_P3, scene.rgb[kept_P], self._camera, radius=2, fill_holes=True)

    def num_inside(self, box: Box) -> int:
        """How many pixels show a point inside a box."""
        shown_P3 = self._xyz_P3[self._seen.index[self._seen.index != NOTHING]]
        return int((np.abs(shown_P3 - np.array(box[:3])) <= np.array(box[3:]) / 2).all(axis=1).sum())

    def draw(self, marked: Sequence[tuple[Box, Pencil]]) -> NDArray[np.uint8]:
        """The picture; later boxes are drawn over earlier ones."""
        rgb_HW3 = np.where(self._seen.index[0, :, :, None] == NOTHING, _PAPER, self._seen.rgb[0]).astype(np.uint8)
        picture = Image.fromarray(rgb_HW3)
        pen = ImageDraw.Draw(picture)
        for box, pencil in marked:
            for width, ink in ((pencil.width + pencil.casing, _CASING), (pencil.width, pencil.colour)):
                for line in self._edges(box):
                    pen.line(line, fill=ink, width=width)
        return np.asarray(picture)

    def _edges(self, box: Box) -> list[list[tuple[float, float]]]:
        """The edges that lie in front of the camera, in pixels."""
        uv_82 = self._camera.project(box.corners)[0][0]
        return [[tuple(uv_82[a]), tuple(uv_82[b])] for a, b in EDGES if np.isfinite(uv_82[[a, b]]).all()]


def _camera(xyz_P3: FloatArray, centre: FloatArray, extent: FloatArray, side: NDArray[np.int_]) -> Cameras:
    """A camera outside, high above a corner, whose picture the points just fill."""
    direction = np.array([*side * [np.cos(_TURN), np.sin(_TURN)] * np.cos(_ELEVATION), np.sin(_ELEVATION)])
    pose_144 = look_at((centre + direction * _DISTANCE * np.linalg.norm(extent))[None], centre[None])
    unit_133 = np.eye(3)[None]
    uv_P2 = Cameras(pose_144, unit_133, SIZE).project(xyz_P3)[0][0]
    low, high = np.percentile(uv_P2, [0.5, 99.5], axis=0)
    focal = (_FILL * np.array(SIZE) / (high - low)).min()
    middle = (np.array(SIZE) - 1) / 2 - focal * (low + high) / 2
    return Cameras(pose_144, np.array([[[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]]]), SIZE)
