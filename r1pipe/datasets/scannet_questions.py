"""Questions drawn from a scan's own instance annotations, where no benchmark asks about it."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from r1pipe.datasets.sample import Sample
from r1pipe.params.section import Split
from r1pipe.scenes.graph import STRUCTURE
from r1pipe.scenes.scene import SceneObject

VAGUE = frozenset({"object", "objects", "unknown", "misc", "remove"})
"""Raw labels that name nothing."""

_UNASKED = frozenset({"otherprop", "otherfurniture", "otherstructure", "person"})


def read(
    scene_id: str, objects: Mapping[int, SceneObject], split: Split, names: Mapping[str, int], seed: int
) -> Iterator[Sample]:
    """How many of each label there are, whether there is one, and where the only one of its label is.

    Every answer is exactly what the annotation says. Half of the existence questions ask for an NYU40 class that no
    object of the scene has.

    Args:
        scene_id: the scene.
        objects: its objects by id.
        split: its split.
        names: NYU40 ids by class name.
        seed: with the scene's id, which absent classes are asked for.
    """
    things = [o for o in objects.values() if o.label not in STRUCTURE | VAGUE]
    counts = Counter(o.label for o in things)

    def sample(key: str, question: str, tag: str, answer: str, targets: list[SceneObject]) -> Sample:
        return Sample(
            id=f"scannet-{scene_id}-{key}",
            scene_id=scene_id,
            task="qa" if answer else "grounding",
            question=question,
            answers=(answer,) if answer else (),
            object_ids=tuple(o.id for o in targets),
            boxes=tuple(o.box for o in targets),
            tags=(tag,),
            source="scannet",
            split=split,
        )

    for label in sorted(counts):
        targets = [o for o in things if o.label == label]
        key = label.replace(" ", "_")
        yield sample(f"count-{key}", f"how many {plural(label)} are there?", "number", str(len(targets)), targets)
        yield sample(f"is-{key}", f"{existence(label)}?", "other", "yes", targets)
        if len(targets) == 1:
            yield sample(f"find-{key}", f"the {label}.", "unique", "", targets)
    for label in _absent(scene_id, objects, names, len(counts), seed):
        key = label.replace(" ", "_")
        yield sample(f"is-{key}", f"{existence(label)}?", "other", "no", [])


def _absent(
    scene_id: str, objects: Mapping[int, SceneObject], names: Mapping[str, int], count: int, seed: int
) -> list[str]:
    """At most `count` NYU40 classes that no object has, by id or by label."""
    ids, labels = {o.nyu40 for o in objects.values()}, {o.label for o in objects.values()}
    free = sorted(n for n, i in names.items() if i not in ids and n not in labels | STRUCTURE | _UNASKED)
    rng = np.random.default_rng([seed, *scene_id.encode()])
    return [free[i] for i in sorted(rng.permutation(len(free))[:count])]


def existence(label: str) -> str:
    """`is there a table`, `is there an oven`, `are there any shelves`."""
    if label.endswith("s") and not label.endswith("ss"):
        return f"are there any {label}"
    return f"is there {'an' if label[0] in 'aeiou' else 'a'} {label}"


def plural(label: str) -> str:
    """The label for several, by the regular rules and ScanNet's own exceptions.

    >>> plural("bookshelf"), plural("box"), plural("shelves")
    ('bookshelves', 'boxes', 'shelves')
    """
    if label.endswith("shelf"):
        return label[:-1] + "ves"
    if label.endswith(("x", "ch", "sh", "ss")):
        return label + "es"
    if label.endswith("y") and label[-2:-1] not in "aeiou":
        return label[:-1] + "ies"
    return label if label.endswith("s") or label in {"clothes", "furniture", "paper"} else label + "s"
