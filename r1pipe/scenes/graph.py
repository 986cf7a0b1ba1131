"""Relations between the objects of a scene: what is nearest, on top, largest, to the left.

Everything is derived from the points and the boxes as scanned, so a question made from these relations and a chain of
thought that explains its answer cannot disagree. A relation that is not clear by a margin is None, never a guess.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from r1pipe.errors import DataError
from r1pipe.scenes.colours import colour_name
from r1pipe.scenes.scene import Scene, SceneObject

Side = Literal["left", "right", "front", "behind"]
Vector = Sequence[float]

STRUCTURE = frozenset({"wall", "floor", "ceiling"})
"""Labels that are annotated but that nobody counts as things in the room."""

NEAR_MARGIN_M = 0.3
"""The nearest object is nearer than the next by at least this, centre to centre."""

SIZE_RATIO = 1.3
"""The larger of two objects has at least this many times the volume of the other."""

TALL_MARGIN_M = 0.2
"""The taller of two objects is taller by at least this."""

_SIDE_DEGREES = 35.0
"""Half-width of the sector around straight left, right, ahead and behind within which a side is clear."""

_STRAIGHT: dict[Side, float] = {"front": 0, "left": 90, "right": -90, "behind": 180}
"""Each side's middle, degrees counter-clockwise from straight ahead."""

_RESTING_M = 0.1
"""A thing rests on another when its bottom is no higher than this above the other's top."""


def things(scene: Scene) -> tuple[SceneObject, ...]:
    """The objects apart from walls, floor and ceiling."""
    return tuple(o for o in scene.objects if o.label not in STRUCTURE)


def mean_colour(scene: Scene, object_id: int) -> tuple[float, float, float]:
    """The mean sRGB of an object's points, 0..255.

    Raises:
        DataError: if the object has no points.
    """
    rgb_P3 = scene.rgb[scene.instance == object_id]
    if len(rgb_P3) == 0:
        raise DataError(f"Expected points of object {object_id} in scene {scene.id}, found none.")
    red, green, blue = rgb_P3.mean(axis=0, dtype=np.float64).tolist()
    return red, green, blue


def colour_of(scene: Scene, object_id: int) -> str:
    """The name of an object's mean colour."""
    return colour_name(mean_colour(scene, object_id))


def distance(a: SceneObject, b: SceneObject) -> float:
    """Metres between the centres of two boxes."""
    return float(np.linalg.norm(np.subtract(a.box.centre, b.box.centre)))


def nearest(
    anchor: SceneObject, candidates: Iterable[SceneObject], *, margin: float = NEAR_MARGIN_M
) -> SceneObject | None:
    """The candidate nearest to the anchor (itself left out), or None where the next is not `margin` metres farther."""
    return _extreme(anchor, candidates, margin, sign=1)


def farthest(
    anchor: SceneObject, candidates: Iterable[SceneObject], *, margin: float = NEAR_MARGIN_M
) -> SceneObject | None:
    """The candidate farthest from the anchor, or None where the next is not `margin` metres nearer."""
    return _extreme(anchor, candidates, margin, sign=-1)


def _extreme(anchor: SceneObject, candidates: Iterable[SceneObject], margin: float, sign: int) -> SceneObject | None:
    ranked = sorted((sign * distance(anchor, o), o.id, o) for o in candidates if o.id != anchor.id)
    if not ranked or (len(ranked) > 1 and ranked[1][0] - ranked[0][0] < margin):
        return None
    return ranked[0][2]


def is_on(a: SceneObject, b: SceneObject) -> bool:
    """Whether `a` rests on `b`: its middle is well inside b's outline, its bottom off the floor and at b's upper part.

    The upper part, because a pillow on a bed lies lower than the headboard, which is the top of the bed's box.
    """
    if a.id == b.id or a.box.low[2] < 0.2 or a.box.volume > b.box.volume:
        return False
    # 5 cm inside: what hangs on the wall behind a dresser has its middle over the dresser's edge.
    inside = all(b.box.low[i] + 0.05 < a.box.centre[i] < b.box.high[i] - 0.05 for i in (0, 1))
    return inside and b.box.low[2] + 0.3 * b.box.dz < a.box.low[2] < b.box.high[2] + _RESTING_M


def support(scene: Scene, thing: SceneObject) -> SceneObject | None:
    """What a thing rests on, the highest of several; None for what stands on the floor or hangs."""
    below = [o for o in things(scene) if is_on(thing, o)]
    return max(below, key=lambda o: o.box.high[2]) if below else None


def resting_on(scene: Scene, base: SceneObject) -> list[SceneObject]:
    """The things whose support is `base`, by id."""
    return [o for o in things(scene) if is_on(o, base) and support(scene, o) == base]


def largest(candidates: Sequence[SceneObject]) -> SceneObject | None:
    """The candidate of largest volume, or None where the next is not clearly smaller (`SIZE_RATIO`)."""
    ranked = sorted(candidates, key=lambda o: o.box.volume, reverse=True)
    clear = len(ranked) > 1 and ranked[0].box.volume >= SIZE_RATIO * ranked[1].box.volume
    return ranked[0] if clear else None


def smallest(candidates: Sequence[SceneObject]) -> SceneObject | None:
    """The candidate of smallest volume, or None where the next is not clearly larger (`SIZE_RATIO`)."""
    ranked = sorted(candidates, key=lambda o: o.box.volume)
    clear = len(ranked) > 1 and ranked[1].box.volume >= SIZE_RATIO * ranked[0].box.volume
    return ranked[0] if clear else None


def tallest(candidates: Sequence[SceneObject]) -> SceneObject | None:
    """The candidate of largest height, or None where the next is not clearly lower (`TALL_MARGIN_M`)."""
    ranked = sorted(candidates, key=lambda o: o.box.dz, reverse=True)
    clear = len(ranked) > 1 and ranked[0].box.dz - ranked[1].box.dz >= TALL_MARGIN_M
    return ranked[0] if clear else None


def ahead(rotation: Vector) -> tuple[float, float]:
    """The horizontal unit direction in which an agent of this quaternion (x, y, z, w) looks: its own +y."""
    x, y, z, w = rotation
    direction = np.array([2 * (x * y - z * w), 1 - 2 * (x * x + z * z)])
    east, north = (direction / np.linalg.norm(direction)).tolist()
    return east, north


def bearing(position: Vector, rotation: Vector, target: Vector) -> float:
    """Degrees, counter-clockwise from straight ahead, -180..180, at which an agent sees a target: positive is left."""
    forward = ahead(rotation)
    east, north = target[0] - position[0], target[1] - position[1]
    along = forward[0] * east + forward[1] * north
    left = forward[0] * north - forward[1] * east
    return float(np.degrees(np.arctan2(left, along)))


def off_side(position: Vector, rotation: Vector, target: Vector, side: Side) -> float:
    """Degrees, 0..180, by which an agent sees a target off straight ahead, left, right or behind."""
    return abs((bearing(position, rotation, target) - _STRAIGHT[side] + 180) % 360 - 180)


def side(position: Vector, rotation: Vector, target: Vector) -> Side | None:
    """On which side of an agent a target lies, or None where that is between two sides."""
    for name in _STRAIGHT:
        if off_side(position, rotation, target, name) <= _SIDE_DEGREES:
            return name
    return None
