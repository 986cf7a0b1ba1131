"""Layouts: which furniture a room of some type has, how much of it, and in which colours."""

import numpy as np

from r1pipe.procedural.furniture import KIND
from r1pipe.procedural.places import place
from r1pipe.procedural.room import Rgb, Rng, Room
from r1pipe.scenes.colours import NAMED, colour_margin, colour_name

PALETTE = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
"""The colours of furniture; gray and brown are left to walls and floors."""

_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Bedroom / Hotel": (("bed",), ("nightstand", "dresser", "desk", "cabinet", "bookshelf", "shelf", "table")),
    "Living room / Lounge": (("couch", "table"), ("shelf", "cabinet", "bookshelf", "dresser", "nightstand")),
    "Office": (("desk",), ("bookshelf", "cabinet", "shelf", "table", "couch", "refrigerator")),
    "Kitchen": (("refrigerator", "table"), ("cabinet", "shelf", "dresser", "nightstand", "desk")),
    "Misc.": (("table",), ("bed", "couch", "desk", "bookshelf", "shelf", "dresser", "nightstand", "refrigerator")),
}
"""ScanNet's scene types: the furniture that makes them, and what else of that size may stand there."""

REPEATED = (
    "chair", "stool", "ottoman", "trash can", "suitcase", "backpack", "box", "lamp", "monitor", "book", "laptop",
    "pillow", "picture", "window", "curtain",
)  # fmt: skip
"""Classes of which a room may have several: what counting is about."""

_SINGLE = (*REPEATED, "tv", "microwave")


def furnish(rng: Rng) -> Room:
    """A room of some type with its furniture: 8 to 16 objects, nothing inside anything else."""
    scene_type = str(rng.choice(list(_TYPES)))
    walls = ((215, 210, 195), (200, 205, 210), (205, 195, 180), (190, 200, 190))
    floors = ((120, 85, 55), (140, 135, 130), (105, 75, 50), (125, 120, 110))
    room = Room(
        size=(rng.uniform(3.8, 5.6), rng.uniform(3.4, 4.8), rng.uniform(2.4, 2.7)),
        scene_type=scene_type,
        wall_rgb=walls[rng.integers(len(walls))],
        floor_rgb=floors[rng.integers(len(floors))],
    )
    for label, count in _programme(scene_type, rng):
        colours = _colours(count, rng)
        for name in colours:
            if len(room.objects) < 16:
                place(room, KIND[label], paint(name, rng), rng)
    return room


def _programme(scene_type: str, rng: Rng) -> list[tuple[str, int]]:
    """Classes with how many of each, in the order in which they look for a place: the large ones first."""
    required, optional = _TYPES[scene_type]
    anchors = [*required, *rng.choice(optional, size=3 - len(required) + int(rng.integers(2)), replace=False)]
    # Chairs are what most rooms have several of.
    weights = np.where(np.array(REPEATED) == "chair", 4.0, 1.0)
    repeated = [str(label) for label in rng.choice(REPEATED, size=2, replace=False, p=weights / weights.sum())]
    rest = [label for label in _SINGLE if label not in repeated]
    singles = [str(label) for label in rng.choice(rest, size=3, replace=False)]
    counts = {label: int(rng.integers(2, 6)) for label in repeated} | dict.fromkeys(singles, 1)
    order = ("hung", "wall", "centre", "table", "free", "on")
    programme = [("door", 1), *((str(anchor), 1) for anchor in anchors), *counts.items()]
    return sorted(programme, key=lambda item: order.index(KIND[item[0]].place))


def _colours(count: int, rng: Rng) -> list[str]:
    """Colour names: half the sets of several share two colours, so that some expressions have several targets."""
    if count > 1 and rng.random() < 0.5:
        pair = rng.choice(PALETTE, size=2, replace=False)
        return [str(name) for name in rng.choice(pair, size=count)]
    return [str(name) for name in rng.choice(PALETTE, size=count, replace=count > len(PALETTE))]


def paint(name: str, rng: Rng) -> Rgb:
    """A colour of this name, jittered, that keeps its name in shade and in the light."""
    while True:
        rgb = np.clip(np.array(NAMED[name]) * 1.07 + rng.normal(0, 9, 3), 0, 255)
        shades = [rgb * 0.82, rgb * 0.92, rgb]
        if all(colour_name(s) == name and colour_margin(s) > 20 for s in shades):
            red, green, blue = rgb.tolist()
            return red, green, blue
