"""Situated questions: somebody stands beside one thing and looks at another, as in SQA3D."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from r1pipe.procedural.annotations.facts import Facts
from r1pipe.procedural.room import Rng
from r1pipe.scenes import graph
from r1pipe.scenes.scene import SceneObject

_STEP_M = 0.45
"""From the edge of the thing beside which somebody stands."""

_DOUBTFUL_DEGREES = 50.0
"""Within this of a side's middle some people would say that a thing is there: then it must not be another answer."""

_PHRASES: dict[graph.Side, str] = {
    "left": "on my left",
    "right": "on my right",
    "behind": "behind me",
    "front": "in front of me",
}


class Situation(NamedTuple):
    """A place, a direction, a sentence for them, and a question with its answer."""

    text: str
    question: str
    answer: str
    position: tuple[float, float, float]
    """Metres, scene frame, on the floor."""

    rotation: tuple[float, float, float, float]
    """Quaternion (x, y, z, w); the agent looks along its own +y."""


class _Stance(NamedTuple):
    text: str
    position: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


def situations(facts: Facts, rng: Rng, count: int) -> list[Situation]:
    """Up to `count` situations with different questions, each from a place of its own."""
    chosen: dict[str, Situation] = {}
    stances = [(a, b) for a in facts.unique for b in facts.unique if graph.distance(a, b) > 1.2]
    for index in rng.permutation(len(stances)):
        stance = _stand(facts, *stances[index])
        options = [] if stance is None else [s for s in _asked(facts, stance) if s.question not in chosen]
        if options:
            situation = _draw(options, rng)
            chosen[situation.question] = situation
        if len(chosen) == count:
            break
    return list(chosen.values())


def _draw(options: list[Situation], rng: Rng) -> Situation:
    """One kind of question, then one answer, then one question: no kind and no answer is the usual one."""
    keys: tuple[Callable[[Situation], str], ...] = (_kind, lambda s: s.answer, lambda s: s.question)
    for key in keys:
        values = sorted({key(s) for s in options})
        value = values[rng.integers(len(values))]
        options = [s for s in options if key(s) == value]
    return options[0]


def _kind(situation: Situation) -> str:
    return " ".join(situation.question.split()[:2])


def _stand(facts: Facts, beside: SceneObject, facing: SceneObject) -> _Stance | None:
    """A step away from a thing, towards the middle of the room; None where something else stands there."""
    if facts.supports[beside.id] is not None or beside.box.cz > 1.2:
        return None
    middle = np.array([beside.box.cx, beside.box.cy])
    inwards = -middle / max(float(np.linalg.norm(middle)), 1e-6)
    reach = min(beside.box.dx / abs(inwards[0] + 1e-9), beside.box.dy / abs(inwards[1] + 1e-9)) / 2
    x, y = (middle + inwards * (reach + _STEP_M)).round(3).tolist()
    taken = any(o.box.low[0] < x < o.box.high[0] and o.box.low[1] < y < o.box.high[1] for o in facts.things)
    if taken or np.hypot(facing.box.cx - x, facing.box.cy - y) < 0.8:
        return None
    yaw = float(np.arctan2(facing.box.cy - y, facing.box.cx - x)) - np.pi / 2
    text = f"i am standing next to the {beside.label} and facing the {facing.label}."
    return _Stance(text, (x, y, 0.0), (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2))))


def _asked(facts: Facts, stance: _Stance) -> Iterator[Situation]:
    place = stance.position, stance.rotation
    for question, answer in _about(facts, stance):
        yield Situation(stance.text, question, answer, *place)


def _about(facts: Facts, stance: _Stance) -> Iterator[tuple[str, str]]:
    """What the only thing on a side is, what colour the only one of its class there has, and on which side a thing is."""
    where = stance.position, stance.rotation
    for side, phrase in _PHRASES.items():
        there = [o for o in facts.things if graph.side(*where, o.box.centre) == side]
        perhaps = [o for o in facts.things if graph.off_side(*where, o.box.centre, side) < _DOUBTFUL_DEGREES]
        if len(there) == len(perhaps) == 1 and not _named(stance, there[0]):
            yield f"what is {phrase}?", there[0].label
        labels = [o.label for o in perhaps]
        for thing in there:
            if labels.count(thing.label) == 1 and not _named(stance, thing):
                yield f"what color is the {thing.label} {phrase}?", facts.colours[thing.id]
            if side != "front" and thing in facts.unique and not _named(stance, thing):
                yield f"which direction is the {thing.label} from me?", side


def _named(stance: _Stance, thing: SceneObject) -> bool:
    return f"the {thing.label} " in stance.text or f"the {thing.label}." in stance.text
