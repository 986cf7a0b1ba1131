"""Noun phrases: what "the red chair nearest the table" refers to, and the look-ups that lead there."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from r1pipe.datasets import Pose
from r1pipe.scenes import SceneObject, graph
from r1pipe.scenes.colours import NAMED
from r1pipe.synthesis.room import Room, names

_CHOICE: dict[str, Callable[[Sequence[SceneObject]], SceneObject | None]] = {
    "largest": graph.largest,
    "biggest": graph.largest,
    "smallest": graph.smallest,
    "tallest": graph.tallest,
}
_RELATION = {
    "nearest": "nearest",
    "nearest to": "nearest",
    "closest to": "nearest",
    "farthest from": "farthest",
    "furthest from": "farthest",
    "on": "on",
    "on top of": "on",
    "next to": "next to",
}
_BESIDE_M = 1.8
"""Things may be called next to each other up to this distance of their centres."""

_JOINTS = frozenset(
    [
        "and",
        "around",
        "at",
        "behind",
        "between",
        "by",
        "from",
        "in",
        "near",
        "of",
        "on",
        "or",
        "over",
        "that",
        "to",
        "under",
        "which",
        "with",
    ]
)
"""Words that a label does not have: a phrase with one of them says more than a label."""

_COLOURS = "|".join([*NAMED, "grey"])
_HEAD = re.compile(
    rf"(?:(?:the|a|an|any)\b ?)?(?:(?P<choice>{'|'.join(_CHOICE)})\b ?)?(?:(?P<colour>{_COLOURS})\b ?)?(?P<noun>.*)"
)
_PAIR = re.compile(
    r"(?:(?P<head>.+?) )??(?:that (?:is|are) )?"
    rf"(?P<relation>{'|'.join(sorted(_RELATION, key=len, reverse=True))}) (?P<anchor>.+)"
)
_SIDE = re.compile(
    r"(?:(?P<head>.+?) )??(?:that (?:is|are) )?"
    r"(?:(?:on|to) (?:my|your) (?P<hand>left|right)|(?P<ahead>behind|in front of) (?:me|you))"
)
_ANYTHING = frozenset({"thing", "things", "object", "objects", "something", "anything", ""})


class Found(NamedTuple):
    """What a phrase refers to."""

    words: str
    """One look-up after another, each identifier right after what it was looked up by."""

    objects: tuple[SceneObject, ...]


class _Head(NamedTuple):
    """The part of a phrase before any relation."""

    name: str
    objects: tuple[SceneObject, ...]
    choose: Callable[[Sequence[SceneObject]], SceneObject | None] | None
    """The superlative that picks one of them."""


def find(phrase: str, room: Room, pose: Pose | None) -> Found | None:
    """The objects of a phrase, perhaps none; None where the phrase is not clear."""
    if (side := _SIDE.fullmatch(phrase)) is not None:
        return _beside(side, room, pose)
    if (pair := _PAIR.fullmatch(phrase)) is not None:
        return _related(pair["head"] or "", _RELATION[pair["relation"]], pair["anchor"], room, pose)
    head = _head(phrase, room)
    return None if head is None else _chosen(head)


def find_one(phrase: str, room: Room, pose: Pose | None) -> Found | None:
    """As `find`; None also where the phrase does not mean exactly one object."""
    found = find(phrase, room, pose)
    return found if found is not None and len(found.objects) == 1 else None


def _head(phrase: str, room: Room) -> _Head | None:
    match = _HEAD.fullmatch(phrase)
    if match is None:
        return None
    colour = "gray" if match["colour"] == "grey" else match["colour"]
    noun = match["noun"] or ""
    label = "" if noun in _ANYTHING else room.label(noun)
    if _is_vague(label, room):
        return None
    objects = room.labels.get(label, ()) if label else room.things
    if colour:
        objects = tuple(o for o in objects if room.colour(o) == colour)
    name = " ".join(word for word in (match["choice"], colour, label) if word)
    return _Head(name, objects, _CHOICE.get(match["choice"] or ""))


def _is_vague(label: str, room: Room) -> bool:
    """Whether a noun is no plain label, or one that others of the room fall under: an office chair is a chair."""
    if label not in room.labels and _JOINTS & set(label.split()):
        return True
    return bool(label) and any(other.endswith(f" {label}") for other in room.labels)


def _chosen(head: _Head) -> Found | None:
    if head.choose is None:
        return Found(_listed(head.name, head.objects), head.objects)
    chosen = head.choose(head.objects)
    return None if chosen is None else Found(_listed(head.name, [chosen]), (chosen,))


def _listed(name: str, objects: Iterable[SceneObject]) -> str:
    return f"{name} {names(objects)}".strip()


def _related(phrase: str, relation: str, anchor_phrase: str, room: Room, pose: Pose | None) -> Found | None:
    anchor, head = find_one(anchor_phrase, room, pose), _head(phrase, room)
    if anchor is None or head is None or head.choose is not None:
        return None
    there = _RELATE[relation](room, anchor.objects[0], head.objects)
    if there is None:
        return None
    return Found(f"{anchor.words} {_listed(f'{relation} {head.name}'.strip(), there)}", tuple(there))


def _beside(match: re.Match[str], room: Room, pose: Pose | None) -> Found | None:
    head = _head(match["head"] or "", room)
    if pose is None or head is None or head.choose is not None:
        return None
    side = match["hand"] or ("behind" if match["ahead"] == "behind" else "front")
    there = tuple(o for o in head.objects if graph.side(pose.position, pose.rotation, o.box.centre) == side)
    return Found(_listed(f"{side} {head.name}".strip(), there), there)


def _nearest(_: Room, anchor: SceneObject, candidates: Sequence[SceneObject]) -> list[SceneObject] | None:
    found = graph.nearest(anchor, candidates)
    return None if found is None else [found]


def _farthest(_: Room, anchor: SceneObject, candidates: Sequence[SceneObject]) -> list[SceneObject] | None:
    found = graph.farthest(anchor, candidates)
    return None if found is None else [found]


def _on(room: Room, anchor: SceneObject, candidates: Sequence[SceneObject]) -> list[SceneObject] | None:
    there = {o.id for o in graph.resting_on(room.scene, anchor)}
    return [o for o in candidates if o.id in there]


def _next_to(_: Room, anchor: SceneObject, candidates: Sequence[SceneObject]) -> list[SceneObject] | None:
    return [o for o in candidates if o.id != anchor.id and graph.distance(anchor, o) < _BESIDE_M]


_RELATE: dict[str, Callable[[Room, SceneObject, Sequence[SceneObject]], list[SceneObject] | None]] = {
    "nearest": _nearest,
    "farthest": _farthest,
    "on": _on,
    "next to": _next_to,
}
