"""Questions that one may ask about a room, from what was detected in it."""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from r1pipe.models.features import SceneFeatures
from r1pipe.params.section import Task
from r1pipe.response import identifier

PATTERNS: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {
        "qa": ("what color is the {one}?", "what color is the {other}?", "is there a {one} in the room?"),
        "situated": ("what color is the {one} in front of me?", "is the {other} to my left?"),
        "grounding": ("the {one}.", "the {other}."),
        "captioning": ("describe {first}.", "describe {second}."),
        "dialogue": ("what color is the {one}?", "where is the {other}?"),
        "planning": ("put the {one} next to the {other}.",),
        "description": ("describe the room.",),
    }
)


def examples(task: Task, features: SceneFeatures) -> list[str]:
    """The task's questions about two of the room's objects: the surest whose class stands there once.

    A room with fewer than two objects has only the questions that name none.
    """
    labels = list(features.object_labels)
    if len(labels) < 2:
        return [pattern for pattern in PATTERNS[task] if "{" not in pattern]
    counts = Counter(labels)
    first, second = sorted(range(len(labels)), key=lambda i: (counts[labels[i]], i))[:2]
    words = {"one": labels[first], "other": labels[second], "first": identifier(first), "second": identifier(second)}
    return [pattern.format(**words) for pattern in PATTERNS[task]]
