"""What is known of a room when somebody annotates it: its things, their colours, what is unique, what rests on what."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from r1pipe.scenes import graph
from r1pipe.scenes.scene import Scene, SceneObject

BESIDE_M = 1.5
"""Things are called next to each other up to this distance of their centres."""


@dataclass(frozen=True)
class Facts:
    """The scene graph of one room, each fact computed once."""

    scene: Scene

    @cached_property
    def things(self) -> tuple[SceneObject, ...]:
        """All objects but walls, floor and ceiling."""
        return graph.things(self.scene)

    @cached_property
    def colours(self) -> dict[int, str]:
        """The colour of each thing by object id."""
        return {o.id: graph.colour_of(self.scene, o.id) for o in self.things}

    @cached_property
    def by_label(self) -> dict[str, list[SceneObject]]:
        """The things of each class, classes in alphabetical order."""
        groups: dict[str, list[SceneObject]] = defaultdict(list)
        for thing in sorted(self.things, key=lambda o: (o.label, o.id)):
            groups[thing.label].append(thing)
        return dict(groups)

    @cached_property
    def unique(self) -> tuple[SceneObject, ...]:
        """The things that are alone of their class: the landmarks of every relation."""
        return tuple(group[0] for group in self.by_label.values() if len(group) == 1)

    @cached_property
    def supports(self) -> dict[int, SceneObject | None]:
        """What each thing rests on."""
        return {o.id: graph.support(self.scene, o) for o in self.things}

    def resting_on(self, base: SceneObject) -> list[SceneObject]:
        """What rests on a thing."""
        return [o for o in self.things if self.supports[o.id] == base]

    def coloured(self, label: str, colour: str) -> list[SceneObject]:
        """The things of a class and a colour."""
        return [o for o in self.by_label.get(label, []) if self.colours[o.id] == colour]

    def name(self, thing: SceneObject) -> str:
        """Its colour and class."""
        return f"{self.colours[thing.id]} {thing.label}"

    def short_name(self, thing: SceneObject) -> str | None:
        """Its class where it is alone of it, else colour and class, or None where others share both."""
        if thing in self.unique:
            return thing.label
        return self.name(thing) if len(self.coloured(thing.label, self.colours[thing.id])) == 1 else None

    def relation(self, thing: SceneObject) -> tuple[str, SceneObject] | None:
        """Where a thing is: on its support, or next to the nearest landmark; None where neither is clear."""
        base = self.supports[thing.id]
        if base is not None:
            return ("on", base) if base in self.unique else None
        near = graph.nearest(thing, (o for o in self.unique if self.supports[o.id] != thing))
        if near is None or graph.distance(thing, near) > BESIDE_M:
            return None
        return "next to", near

    def holds(self, thing: SceneObject, preposition: str, landmark: SceneObject) -> bool:
        """Whether somebody might say that a thing is on, or next to, a landmark; more generous than `relation`."""
        if preposition == "on":
            return self.supports[thing.id] == landmark
        return graph.distance(thing, landmark) < BESIDE_M + graph.NEAR_MARGIN_M


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(label: str) -> str:
    """The plural of a class."""
    if label.endswith("shelf"):
        return label[:-1] + "ves"
    return label + ("es" if label.endswith(("x", "ch", "s")) else "s")


def listing(items: Sequence[str]) -> str:
    """Items as English lists them, at least one."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
