"""Furniture: each class as parts, with its sizes, its NYU40 class and where it stands.

Frame of a part list: metres, z up from the floor (or from what it stands on), origin in the middle of the footprint, the
front towards -y, the back (which goes to the wall) towards +y.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

Size = tuple[float, float, float]
Shape = Literal["box", "cylinder", "ellipsoid"]
Place = Literal["wall", "centre", "free", "table", "on", "hung"]

_DARK, _DIM, _PLAIN, _BRIGHT = 0.8, 0.9, 1.0, 1.06


class Part(NamedTuple):
    """A solid of one colour: what a scan segments as one surface."""

    shape: Shape
    centre: Size
    size: Size
    shade: float = _PLAIN
    """Factor on the object's colour."""


class Kind(NamedTuple):
    """A furniture class."""

    label: str
    """Raw label; one of ScanNet's."""

    nyu40: int
    place: Place
    low: Size
    """Smallest width, depth and height, metres."""

    high: Size
    parts: Callable[[float, float, float], list[Part]]
    height: float = 0.0
    """Where the bottom of a hung kind is, metres above the floor."""

    surface: float = 0.0
    """Height of what things rest on, as a share of the kind's own height; 0 where nothing rests on it."""


def _block(x: float, y: float, bottom: float, w: float, d: float, h: float, shade: float = _PLAIN) -> Part:
    return Part("box", (x, y, bottom + h / 2), (w, d, h), shade)


def _legs(w: float, d: float, h: float, thick: float) -> list[Part]:
    x, y = (w - thick) / 2, (d - thick) / 2
    return [_block(i * x, j * y, 0, thick, thick, h, _DIM) for i in (-1, 1) for j in (-1, 1)]


def _chair(w: float, d: float, h: float) -> list[Part]:
    seat = 0.5 * h
    back = _block(0, d / 2 - 0.03, seat, w, 0.06, h - seat, _DIM)
    return [*_legs(w, d, seat - 0.06, 0.05), _block(0, 0, seat - 0.06, w, d, 0.06), back]


def _stool(w: float, d: float, h: float) -> list[Part]:
    return [*_legs(0.75 * w, 0.75 * d, h - 0.08, 0.05), Part("cylinder", (0, 0, h - 0.04), (w, d, 0.08))]


def _table(w: float, d: float, h: float) -> list[Part]:
    return [*_legs(w, d, h - 0.05, 0.07), _block(0, 0, h - 0.05, w, d, 0.05)]


def _desk(w: float, d: float, h: float) -> list[Part]:
    sides = [_block(i * (w / 2 - 0.03), 0, 0, 0.06, d, h - 0.05, _DIM) for i in (-1, 1)]
    drawers = _block(w / 2 - 0.25, 0, 0.1, 0.38, 0.8 * d, h - 0.15, _DIM)
    modesty = _block(0, d / 2 - 0.02, 0.3 * h, w - 0.12, 0.03, 0.6 * h, _DIM)
    return [*sides, drawers, modesty, _block(0, 0, h - 0.05, w, d, 0.05)]


def _bed(w: float, d: float, h: float) -> list[Part]:
    headboard = _block(0, d / 2 - 0.03, 0, w, 0.06, h, _DIM)
    mattress = _block(0, -0.03, 0.25, w - 0.02, d - 0.06, 0.5 * h - 0.25)
    return [*_legs(w, d, 0.12, 0.08), _block(0, -0.03, 0.1, w, d - 0.06, 0.15, _DIM), mattress, headboard]


def _couch(w: float, d: float, h: float) -> list[Part]:
    arms = [_block(i * (w / 2 - 0.09), 0, 0, 0.18, d, 0.7 * h, _DIM) for i in (-1, 1)]
    cushions = [_block(i * (w - 0.36) / 4, -0.1, 0.15, (w - 0.36) / 2 - 0.02, d - 0.2, 0.5 * h - 0.15) for i in (-1, 1)]
    return [*arms, *cushions, _block(0, d / 2 - 0.1, 0, w - 0.36, 0.2, h)]


def _shelves(w: float, d: float, h: float, boards: int) -> list[Part]:
    sides = [_block(i * (w / 2 - 0.02), 0, 0, 0.04, d, h, _DIM) for i in (-1, 1)]
    levels = [_block(0, 0, i * (h - 0.04) / boards, w - 0.08, d, 0.04) for i in range(boards + 1)]
    return [*sides, *levels, _block(0, d / 2 - 0.01, 0, w - 0.08, 0.02, h, _DIM)]


def _bookshelf(w: float, d: float, h: float) -> list[Part]:
    # Rows of spines, set back, in shades of the shelf's own colour: one clearly nameable colour an object.
    step = (h - 0.04) / 4
    shades = (_DIM, _BRIGHT, _DARK, _DIM)
    rows = [_block(0, 0.04, i * step + 0.04, w - 0.12, 0.6 * d, 0.62 * step, shades[i]) for i in range(4)]
    return [*_shelves(w, d, h, 4), *rows]


def _shelf(w: float, d: float, h: float) -> list[Part]:
    return _shelves(w, d, h, 2)


def _doors(w: float, d: float, h: float) -> list[Part]:
    leaves = [_block(i * w / 4, -d / 2 + 0.01, 0.06, w / 2 - 0.02, 0.03, h - 0.1, _BRIGHT) for i in (-1, 1)]
    knobs = [_block(i * 0.05, -d / 2 - 0.015, h / 2, 0.03, 0.03, 0.1, _DARK) for i in (-1, 1)]
    return [_block(0, 0.015, 0, w, d - 0.03, h), *leaves, *knobs]


def _drawers(w: float, d: float, h: float) -> list[Part]:
    step = (h - 0.08) / 3
    fronts = [_block(0, -d / 2 + 0.01, 0.05 + i * step, w - 0.04, 0.03, step - 0.03, _BRIGHT) for i in range(3)]
    return [_block(0, 0.015, 0, w, d - 0.03, h), *fronts]


def _nightstand(w: float, d: float, h: float) -> list[Part]:
    front = _block(0, -d / 2 + 0.01, 0.55 * h, w - 0.05, 0.03, 0.35 * h, _BRIGHT)
    return [*_legs(w, d, 0.25 * h, 0.05), _block(0, 0.015, 0.25 * h, w, d - 0.03, 0.75 * h), front]


def _refrigerator(w: float, d: float, h: float) -> list[Part]:
    freezer = _block(0, -d / 2 + 0.02, 0.7 * h, w, 0.04, 0.28 * h, _BRIGHT)
    fridge = _block(0, -d / 2 + 0.02, 0.03, w, 0.04, 0.65 * h, _BRIGHT)
    handle = _block(-0.4 * w, -d / 2 - 0.015, 0.4 * h, 0.03, 0.03, 0.25 * h, _DARK)
    return [_block(0, 0.02, 0, w, d - 0.04, h), freezer, fridge, handle]


def _lamp(w: float, d: float, h: float) -> list[Part]:
    base = Part("cylinder", (0, 0, 0.02), (0.7 * w, 0.7 * d, 0.04), _DIM)
    pole = Part("cylinder", (0, 0, 0.3 * h), (0.05, 0.05, 0.6 * h), _DIM)
    return [base, pole, Part("cylinder", (0, 0, 0.78 * h), (w, d, 0.44 * h))]


def _screen(w: float, d: float, h: float) -> list[Part]:
    foot = _block(0, 0, 0, 0.5 * w, d, 0.03, _DIM)
    neck = _block(0, 0.02, 0.03, 0.1, 0.04, 0.2 * h, _DIM)
    panel = _block(0, 0, 0.18 * h, w, 0.05, 0.82 * h)
    return [foot, neck, panel, _block(0, -0.028, 0.23 * h, 0.92 * w, 0.006, 0.72 * h, _DIM)]


def _laptop(w: float, d: float, h: float) -> list[Part]:
    return [_block(0, 0, 0, w, d, 0.03), _block(0, d / 2 - 0.015, 0.03, w, 0.03, h - 0.03, _DIM)]


def _book(w: float, d: float, h: float) -> list[Part]:
    cover = 0.03
    covers = [_block(0, 0, z, w, d, cover) for z in (0, h - cover)]
    return [
        *covers,
        _block(0.02, 0, cover, w - 0.04, d - 0.04, h - 2 * cover, _BRIGHT),
        _block(-w / 2 + 0.015, 0, 0, 0.03, d, h),
    ]


def _box(w: float, d: float, h: float) -> list[Part]:
    return [_block(0, 0, 0, w - 0.02, d - 0.02, 0.75 * h), _block(0, 0, 0.75 * h, w, d, 0.25 * h, _DIM)]


def _trash_can(w: float, d: float, h: float) -> list[Part]:
    return [
        Part("cylinder", (0, 0, 0.45 * h), (0.9 * w, 0.9 * d, 0.9 * h)),
        Part("cylinder", (0, 0, 0.95 * h), (w, d, 0.1 * h), _DIM),
    ]


def _backpack(w: float, d: float, h: float) -> list[Part]:
    body = Part("ellipsoid", (0, 0.05 * d, h / 2), (w, 0.9 * d, h))
    return [body, _block(0, -0.38 * d, 0.1 * h, 0.7 * w, 0.24 * d, 0.4 * h, _DIM)]


def _pillow(w: float, d: float, h: float) -> list[Part]:
    return [Part("ellipsoid", (0, 0, h / 2), (w, d, h))]


def _suitcase(w: float, d: float, h: float) -> list[Part]:
    handle = _block(0, 0, 0.86 * h, 0.4 * w, 0.04, 0.14 * h, _DIM)
    return [_block(0, 0, 0.05, w, d, 0.81 * h), _block(0, -d / 2, 0.15, 0.8 * w, 0.02, 0.6 * h, _BRIGHT), handle]


def _microwave(w: float, d: float, h: float) -> list[Part]:
    window = _block(-0.1 * w, -d / 2 + 0.01, 0.12 * h, 0.7 * w, 0.02, 0.76 * h, _DIM)
    return [_block(0, 0.01, 0, w, d - 0.02, h), window]


def _ottoman(w: float, d: float, h: float) -> list[Part]:
    return [
        Part("cylinder", (0, 0, 0.4 * h), (0.94 * w, 0.94 * d, 0.8 * h), _DIM),
        Part("cylinder", (0, 0, 0.9 * h), (w, d, 0.2 * h)),
    ]


def _picture(w: float, d: float, h: float) -> list[Part]:
    return [_block(0, 0, 0, w, d, h, _DIM), _block(0, -d / 2 - 0.004, 0.08, w - 0.16, 0.008, h - 0.16, _BRIGHT)]


def _curtain(w: float, d: float, h: float) -> list[Part]:
    folds = 5
    step = w / folds
    return [
        _block((i - (folds - 1) / 2) * step, (i % 2 - 0.5) * 0.4 * d, 0, step, 0.6 * d, h, _DIM if i % 2 else _PLAIN)
        for i in range(folds)
    ]


def _door(w: float, d: float, h: float) -> list[Part]:
    knob = _block(0.38 * w, -d / 2 - 0.02, 0.48 * h, 0.08, 0.04, 0.05, _DARK)
    panels = [_block(0, -d / 2 - 0.004, z * h, 0.6 * w, 0.008, 0.34 * h, _DIM) for z in (0.08, 0.56)]
    return [_block(0, 0, 0, w, d, h), *panels, knob]


def _window(w: float, d: float, h: float) -> list[Part]:
    stiles = [_block(i * (w / 2 - 0.04), 0, 0, 0.08, d, h, _DIM) for i in (-1, 0, 1)]
    rails = [_block(0, 0, z, w, d, 0.08, _DIM) for z in (0, h - 0.08)]
    # The blind behind the glass: bare glass scans as a hole.
    return [*stiles[::2], *rails, _block(0, 0.2 * d, 0.08, w - 0.16, 0.4 * d, h - 0.16)]


KINDS: tuple[Kind, ...] = (
    Kind("bed", 4, "wall", (1.2, 1.9, 0.9), (1.7, 2.1, 1.15), _bed, surface=0.5),
    Kind("couch", 6, "wall", (1.5, 0.8, 0.75), (2.2, 0.95, 0.95), _couch, surface=0.5),
    Kind("desk", 14, "wall", (1.1, 0.6, 0.7), (1.6, 0.8, 0.8), _desk, surface=1.0),
    Kind("dresser", 17, "wall", (0.8, 0.45, 0.75), (1.4, 0.55, 1.1), _drawers, surface=1.0),
    Kind("cabinet", 3, "wall", (0.6, 0.4, 0.7), (1.0, 0.55, 1.5), _doors, surface=1.0),
    Kind("bookshelf", 10, "wall", (0.7, 0.28, 1.4), (1.2, 0.38, 2.0), _bookshelf),
    Kind("shelf", 15, "wall", (0.6, 0.3, 0.6), (1.1, 0.4, 1.2), _shelf, surface=1.0),
    Kind("nightstand", 32, "wall", (0.4, 0.38, 0.45), (0.55, 0.48, 0.65), _nightstand, surface=1.0),
    Kind("refrigerator", 24, "wall", (0.6, 0.6, 1.5), (0.85, 0.75, 1.9), _refrigerator),
    Kind("table", 7, "centre", (0.9, 0.75, 0.7), (1.7, 1.0, 0.78), _table, surface=1.0),
    Kind("chair", 5, "table", (0.42, 0.42, 0.8), (0.52, 0.52, 1.0), _chair),
    Kind("stool", 40, "free", (0.34, 0.34, 0.42), (0.44, 0.44, 0.7), _stool),
    Kind("ottoman", 39, "free", (0.5, 0.5, 0.38), (0.75, 0.75, 0.48), _ottoman),
    Kind("trash can", 39, "free", (0.28, 0.28, 0.35), (0.42, 0.42, 0.7), _trash_can),
    Kind("suitcase", 40, "free", (0.4, 0.25, 0.55), (0.55, 0.35, 0.8), _suitcase),
    Kind("backpack", 40, "free", (0.34, 0.28, 0.45), (0.44, 0.36, 0.58), _backpack),
    Kind("box", 29, "on", (0.28, 0.25, 0.22), (0.5, 0.42, 0.42), _box),
    Kind("lamp", 35, "on", (0.28, 0.28, 0.45), (0.4, 0.4, 0.65), _lamp),
    Kind("monitor", 40, "on", (0.5, 0.2, 0.4), (0.7, 0.26, 0.52), _screen),
    Kind("tv", 25, "on", (0.75, 0.24, 0.5), (1.0, 0.3, 0.65), _screen),
    Kind("laptop", 40, "on", (0.36, 0.28, 0.26), (0.44, 0.34, 0.32), _laptop),
    Kind("book", 23, "on", (0.28, 0.24, 0.12), (0.36, 0.3, 0.18), _book),
    Kind("microwave", 40, "on", (0.46, 0.36, 0.28), (0.58, 0.42, 0.34), _microwave),
    Kind("pillow", 18, "on", (0.42, 0.34, 0.14), (0.58, 0.44, 0.2), _pillow),
    Kind("picture", 11, "hung", (0.5, 0.04, 0.4), (1.0, 0.05, 0.7), _picture, height=1.35),
    Kind("curtain", 16, "hung", (0.5, 0.12, 1.7), (0.9, 0.14, 2.1), _curtain, height=0.1),
    Kind("door", 8, "hung", (0.8, 0.06, 1.95), (0.95, 0.06, 2.08), _door, height=0.0),
    Kind("window", 9, "hung", (0.8, 0.06, 0.9), (1.4, 0.06, 1.2), _window, height=1.0),
)

KIND = {kind.label: kind for kind in KINDS}
"""The classes by label."""

NYU40 = {
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 14: "desk", 15: "shelves", 16: "curtain", 17: "dresser", 18: "pillow", 23: "books",
    24: "refrigerator", 25: "television", 29: "box", 32: "night stand", 35: "lamp", 39: "otherfurniture", 40: "otherprop",
}  # fmt: skip
"""NYU40 names of the classes in use, as in ScanNet's label map."""
