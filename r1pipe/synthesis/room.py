"""A scene as words look it up: objects by label, colours by object, labels in a text."""

import re
from collections.abc import Iterable
from functools import cached_property

from r1pipe.response import identifier
from r1pipe.scenes import Scene, SceneObject
from r1pipe.scenes.graph import colour_of, things

NONE = "none"
"""Stands for an empty list of objects."""


class Room:
    """Look-ups in one scene, each made once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._colours: dict[int, str | None] = {}

    @cached_property
    def things(self) -> tuple[SceneObject, ...]:
        """What stands in the room, walls, floor and ceiling left out."""
        return things(self.scene)

    @cached_property
    def labels(self) -> dict[str, tuple[SceneObject, ...]]:
        """The objects of each label, ascending ids."""
        found: dict[str, tuple[SceneObject, ...]] = {}
        for thing in sorted(self.scene.objects, key=lambda o: o.id):
            found[thing.label] = (*found.get(thing.label, ()), thing)
        return found

    @cached_property
    def unique(self) -> tuple[SceneObject, ...]:
        """The things that are alone of their label."""
        return tuple(o for o in self.things if len(self.labels[o.label]) == 1)

    @cached_property
    def _mention(self) -> re.Pattern[str]:
        """Any label, singular or plural; longer ones first, so that an office chair is no chair."""
        forms = sorted((form for label in self.labels for form in {label, plural(label)}), key=lambda f: (-len(f), f))
        return re.compile(rf"\b({'|'.join(map(re.escape, forms))})\b") if forms else re.compile(r"(?!)")

    @cached_property
    def _singular(self) -> dict[str, str]:
        return {plural(label): label for label in self.labels} | {label: label for label in self.labels}

    def label(self, noun: str) -> str:
        """The label that a noun, singular or plural, names; the noun itself where the room has no such thing."""
        return self._singular.get(noun, noun)

    def mentioned(self, text: str) -> list[str]:
        """The labels that occur in a text, in order, each once."""
        return list(dict.fromkeys(self._singular[form] for form in self._mention.findall(text.lower())))

    def colour(self, thing: SceneObject) -> str | None:
        """The name of an object's colour; None for an object that no point was seen of."""
        if thing.id not in self._colours:
            seen = bool((self.scene.instance == thing.id).any())
            self._colours[thing.id] = colour_of(self.scene, thing.id) if seen else None
        return self._colours[thing.id]


def plural(noun: str) -> str:
    """The regular plural, and that of `shelf`; a label that is one already stays as it is.

    >>> plural("bookshelf"), plural("bench"), plural("trash can"), plural("blinds")
    ('bookshelves', 'benches', 'trash cans', 'blinds')
    """
    if noun.endswith("s") and not noun.endswith("ss"):
        return noun
    if noun.endswith("shelf"):
        return noun[:-1] + "ves"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(?:s|x|z|ch|sh)$", noun) else "s")


def names(objects: Iterable[SceneObject]) -> str:
    """The identifiers of the objects, ascending; `none` for no object."""
    return " ".join(identifier(i) for i in sorted(o.id for o in objects)) or NONE
