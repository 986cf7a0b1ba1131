"""A room in words, for a reader who cannot see it: its objects, how they stand to each other, what people said of them."""

from collections.abc import Collection, Mapping

from r1pipe.response import identifier
from r1pipe.scenes import Scene, SceneObject, graph
from r1pipe.synthesis.room import Room


class Outline:
    """The lines of one scene, each written once however many samples ask for them.

    Frame and unit are the scene's: metres, z up.
    """

    def __init__(self, scene: Scene, captions: Mapping[int, str]) -> None:
        """Read the scene graph.

        Args:
            scene: the room.
            captions: a person's description of some objects, by id.
        """
        self._room = Room(scene)
        self._captions = captions
        self._lines = {thing.id: self._line(thing) for thing in scene.objects}

    def text(self, *, captions: bool, hidden: Collection[int] = ()) -> str:
        """One line an object, in the scene's order.

        Args:
            captions: whether what people said of the objects is told.
            hidden: objects of which it is not.
        """
        said = self._captions if captions else {}
        return "\n".join(
            f'{line}, "{said[i]}"' if i in said and i not in hidden else line for i, line in self._lines.items()
        )

    def _line(self, thing: SceneObject) -> str:
        centre, size = (", ".join(f"{number:.2f}" for number in part) for part in (thing.box.centre, thing.box.size))
        colour = self._room.colour(thing) or "no colour"
        return f"{_name(thing)}, {colour}, centre ({centre}), size ({size}){self._relations(thing)}"

    def _relations(self, thing: SceneObject) -> str:
        if thing.label in graph.STRUCTURE:
            return ""
        base = graph.support(self._room.scene, thing)
        near = graph.nearest(thing, self._room.things)
        on = f", on {_name(base)}" if base is not None else ""
        return on + (f", nearest {_name(near)}" if near is not None and near != base else "")


def _name(thing: SceneObject) -> str:
    return f"{identifier(thing.id)} {thing.label}"
