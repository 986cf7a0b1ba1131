"""Places: where a kind of furniture may stand in a room, as candidates in random order.

Yaw 0 has the front towards -y and the back towards +y; yaws turn counter-clockwise.
"""

import numpy as np

from r1pipe.procedural.furniture import Kind, Size
from r1pipe.procedural.room import BACK_M, Placed, Rgb, Rng, Room

_TRIES = 60
"""Candidate places for one object; one that finds none is left out of the room."""

Places = list[tuple[list[Size], list[float]]]
"""Groups of candidate positions with their yaws, the preferred group first."""


def place(room: Room, kind: Kind, rgb: Rgb, rng: Rng) -> Placed | None:
    """Find a place for an object of this kind, or leave it out where the room has none."""
    size = _size(kind, rng)
    finders = {"wall": _at_wall, "hung": _at_wall, "centre": _central, "table": _at_table, "free": _anywhere, "on": _on}
    for position, yaw in finders[kind.place](room, kind, size, rng):
        found = room.add([Placed(kind, size, p, y, rgb) for p, y in zip(position, yaw, strict=True)])
        if found is not None:
            return found
    return None


def _size(kind: Kind, rng: Rng) -> Size:
    w, d, h = (float(rng.uniform(low, high)) for low, high in zip(kind.low, kind.high, strict=True))
    return w, d, h


def _at_wall(room: Room, kind: Kind, size: Size, rng: Rng) -> Places:
    """Back to one of the four walls."""
    away = 0.0 if kind.place == "hung" else 0.03
    positions: list[Size] = []
    yaws: list[float] = []
    for wall, along in zip(rng.integers(0, 4, _TRIES), rng.uniform(-0.5, 0.5, _TRIES), strict=True):
        across = room.size[1] if wall % 2 == 0 else room.size[0]
        length = room.size[0] if wall % 2 == 0 else room.size[1]
        # Yaw 0 has its back to +y; a quarter turn counter-clockwise to -x, and so on.
        s, t = along * max(length - size[0] - 0.1, 0), across / 2 - size[1] / 2 - away
        x, y = ((s, t), (-t, s), (-s, -t), (t, -s))[wall]
        positions.append((float(x), float(y), kind.height))
        yaws.append(float(wall) * np.pi / 2)
    return [(positions, yaws)]


def _central(room: Room, kind: Kind, size: Size, rng: Rng) -> Places:
    """Away from the walls, with a place to sit on every side if possible."""
    groups: Places = []
    for margin in (0.75, 0.3, 0.02):
        half = [max(room.size[i] / 2 - max(size[:2]) / 2 - margin, 0.01) for i in (0, 1)]
        xy = rng.uniform(-1, 1, (_TRIES, 2)) * half
        yaws = rng.integers(0, 2, _TRIES) * np.pi / 2
        groups.append(([(float(x), float(y), 0.0) for x, y in xy], [float(yaw) for yaw in yaws]))
    return groups


def _at_table(room: Room, kind: Kind, size: Size, rng: Rng) -> Places:
    """Facing a table or the front of a desk; anywhere when every seat is taken."""
    positions: list[Size] = []
    yaws: list[float] = []
    for base in room.objects:
        if base.kind.label in ("table", "desk"):
            for position, yaw in _seats(base, size):
                positions.append(position)
                yaws.append(yaw + float(rng.uniform(-0.15, 0.15)))
    order = rng.permutation(len(positions))
    return [([positions[i] for i in order], [yaws[i] for i in order]), *_anywhere(room, kind, size, rng)]


def _seats(base: Placed, size: Size) -> list[tuple[Size, float]]:
    """Where a chair may stand at a table: two a long side, one a short one; at a desk only in front."""
    w, d, _ = base.size
    gap = size[1] / 2 + 0.12
    local = [(-w / 4, -d / 2 - gap, 0.0), (w / 4, -d / 2 - gap, 0.0)]
    if base.kind.label == "desk":
        local = [(-w / 6, -d / 2 - gap, 0.0)]
    else:
        local += [(-w / 4, d / 2 + gap, np.pi), (w / 4, d / 2 + gap, np.pi)]
        local += [(-w / 2 - gap, 0, -np.pi / 2), (w / 2 + gap, 0, np.pi / 2)]
    c, s = np.cos(base.yaw), np.sin(base.yaw)
    x0, y0, _ = base.position
    # Turned by half a circle: a chair's front looks at the table, whose side it stands at.
    return [
        ((float(x0 + c * x - s * y), float(y0 + s * x + c * y), 0.0), base.yaw + turn + np.pi) for x, y, turn in local
    ]


def _anywhere(room: Room, kind: Kind, size: Size, rng: Rng) -> Places:
    """Free on the floor, at any angle."""
    half = [room.size[i] / 2 - 0.5 * float(np.hypot(*size[:2])) - 0.05 for i in (0, 1)]
    xy = rng.uniform(-1, 1, (_TRIES, 2)) * half
    yaws = rng.integers(0, 4, _TRIES) * np.pi / 2 + rng.uniform(-0.25, 0.25, _TRIES)
    return [([(float(x), float(y), 0.0) for x, y in xy], [float(yaw) for yaw in yaws])]


def _on(room: Room, kind: Kind, size: Size, rng: Rng) -> Places:
    """On top of something that carries it; boxes also stand on the floor."""
    positions: list[Size] = []
    yaws: list[float] = []
    for base in _bases(room, kind):
        soft = base.kind.surface < 1
        back, arm = (BACK_M + 0.02, 0.18) if soft else (0.0, 0.0)
        reach = [base.size[0] / 2 - size[0] / 2 - 0.03 - arm, (base.size[1] - back) / 2 - size[1] / 2 - 0.02]
        if min(reach) < 0:
            continue
        local = rng.uniform(-1, 1, (12, 2)) * reach - [0, back / 2]
        c, s = np.cos(base.yaw), np.sin(base.yaw)
        top = base.position[2] + base.size[2] * base.kind.surface
        # A hair's breadth above, so that touching does not count as overlap.
        positions += [
            (base.position[0] + float(c * x - s * y), base.position[1] + float(s * x + c * y), top + 0.002)
            for x, y in local
        ]
        yaws += [base.yaw] * len(local)
    order = rng.permutation(len(positions))
    group = [positions[i] for i in order], [yaws[i] for i in order]
    return [group, *(_anywhere(room, kind, size, rng) if kind.label in ("box", "book") else [])]


def _bases(room: Room, kind: Kind) -> list[Placed]:
    """What carries this kind: beds and couches carry pillows alone, and low things carry nothing tall."""
    soft = kind.label == "pillow"
    low = 1.3 - (kind.low[2] if kind.label in ("tv", "lamp", "monitor") else 0)
    return [o for o in room.objects if o.kind.surface and (o.kind.surface < 1) == soft and o.size[2] < low]
