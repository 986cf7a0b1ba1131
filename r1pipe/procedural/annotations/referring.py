"""Referring expressions: captions that single an object out, size and distance, left and right, several and none."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from r1pipe.procedural.annotations.facts import Facts, article, plural
from r1pipe.procedural.layout import PALETTE
from r1pipe.procedural.room import Rng
from r1pipe.scenes import graph
from r1pipe.scenes.scene import SceneObject

_CLEAR_DEGREES = 12.0
"""A thing is on the left or on the right of a line of sight only this far off it."""

_NR3D_PER_ROOM = 3


class Expression(NamedTuple):
    """A text and the objects that it means."""

    text: str
    targets: tuple[SceneObject, ...]
    label: str
    spatial: bool
    colour: bool


def captions(facts: Facts) -> list[Expression]:
    """One description an object, by which it can be found; objects that none singles out have none."""
    described = (_caption(facts, thing) for thing in facts.things)
    return [expression for expression in described if expression is not None]


def _caption(facts: Facts, thing: SceneObject) -> Expression | None:
    """Class, colour and, where one is clear, a relation; with the size where that alone tells it from its like."""
    alike = [o for o in facts.coloured(thing.label, facts.colours[thing.id]) if o.id != thing.id]
    place = facts.relation(thing)
    noun = article(facts.name(thing))
    if place is not None and not any(facts.holds(o, *place) for o in alike):
        return Expression(f"{noun} {place[0]} the {place[1].label}.", (thing,), thing.label, True, True)
    if not alike:
        return Expression(f"{noun}.", (thing,), thing.label, False, True)
    for word, extreme in (("largest", graph.largest), ("smallest", graph.smallest)):
        if extreme([thing, *alike]) == thing:
            return Expression(f"the {word} {facts.name(thing)}.", (thing,), thing.label, False, True)
    return None


def among_many(facts: Facts, rng: Rng) -> list[Expression]:
    """Expressions for objects with others of their class around, of several kinds, as in Nr3D."""
    kinds = [list(_by_size(facts)), list(_by_distance(facts)), list(_by_side(facts))]
    for expressions in kinds:
        rng.shuffle(expressions)
    # One of each kind before a second of any.
    mixed = [kind[i] for i in range(_NR3D_PER_ROOM) for kind in kinds if i < len(kind)]
    return mixed[:_NR3D_PER_ROOM]


def _several(facts: Facts) -> list[tuple[str, list[SceneObject]]]:
    return [(label, group) for label, group in facts.by_label.items() if len(group) > 1]


def _by_size(facts: Facts) -> Iterator[Expression]:
    for label, group in _several(facts):
        for word, extreme in (("largest", graph.largest), ("smallest", graph.smallest), ("tallest", graph.tallest)):
            if (target := extreme(group)) is not None:
                yield Expression(f"the {word} {label}.", (target,), label, False, False)


def _by_distance(facts: Facts) -> Iterator[Expression]:
    for label, group in _several(facts):
        for landmark in facts.unique:
            if (near := graph.nearest(landmark, group)) is not None:
                yield Expression(f"the {label} nearest to the {landmark.label}.", (near,), label, True, False)
            if (far := graph.farthest(landmark, group)) is not None:
                yield Expression(f"the {label} farthest from the {landmark.label}.", (far,), label, True, False)


def _by_side(facts: Facts) -> Iterator[Expression]:
    """From the middle of the room: the only one of its class to the left, or to the right, of a landmark."""
    for label, group in _several(facts):
        for landmark in facts.unique:
            eye, rotation = _looking_at(landmark)
            if np.hypot(landmark.box.cx, landmark.box.cy) < 1.0:
                continue
            angles = [graph.bearing(eye, rotation, o.box.centre) for o in group]
            if any(abs(angle) < _CLEAR_DEGREES or abs(angle) > 180 - _CLEAR_DEGREES for angle in angles):
                continue
            for word, sign in (("left", 1), ("right", -1)):
                there = [o for o, angle in zip(group, angles, strict=True) if sign * angle > 0]
                if len(there) == 1:
                    text = f"facing the {landmark.label}, the {label} on the {word}."
                    yield Expression(text, (there[0],), label, True, False)


def _looking_at(landmark: SceneObject) -> tuple[tuple[float, float], tuple[float, float, float, float]]:
    """An agent in the middle of the room, which is the scene's origin, with the quaternion that faces a landmark."""
    yaw = float(np.arctan2(landmark.box.cy, landmark.box.cx)) - np.pi / 2
    return (0.0, 0.0), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2)))


def any_number(facts: Facts, rng: Rng) -> list[Expression]:
    """Expressions with several targets, with none and with one, one of each where the room has it, as in Multi3DRefer."""
    chosen = []
    # A coin decides between one among others of its class, told apart by its colour, and one alone of its class.
    one = list(_one_coloured(facts)) if rng.random() < 0.5 else []
    for candidates in (list(_many(facts)), _none(facts, rng), one or list(_one(facts))):
        if candidates:
            chosen.append(candidates[rng.integers(len(candidates))])
    return chosen


def _many(facts: Facts) -> Iterator[Expression]:
    for label, group in _several(facts):
        yield Expression(f"the {plural(label)}.", tuple(group), label, False, False)
        for colour in sorted({facts.colours[o.id] for o in group}):
            if len(same := facts.coloured(label, colour)) > 1:
                yield Expression(f"the {colour} {plural(label)}.", tuple(same), label, False, True)


def _none(facts: Facts, rng: Rng) -> list[Expression]:
    """A class of the room in a colour that it does not have here."""
    label = str(rng.choice(list(facts.by_label)))
    absent = [colour for colour in PALETTE if not facts.coloured(label, colour)]
    return [Expression(f"the {colour} {label}.", (), label, False, True) for colour in absent]


def _one(facts: Facts) -> Iterator[Expression]:
    for thing in facts.unique:
        yield Expression(f"the {thing.label}.", (thing,), thing.label, False, False)


def _one_coloured(facts: Facts) -> Iterator[Expression]:
    for label, group in _several(facts):
        for thing in group:
            if facts.coloured(label, facts.colours[thing.id]) == [thing]:
                yield Expression(f"the {facts.name(thing)}.", (thing,), label, False, True)
