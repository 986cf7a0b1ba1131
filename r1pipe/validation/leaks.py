"""Questions of validation and test that training has seen about the same room, word for word or nearly so.

Only within a room: "what color is the chair?" may be asked of every room there is. Re-scans are one room.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from r1pipe.datasets import Sample
from r1pipe.datasets.manifest import room_of

_WORD = re.compile(r"[a-z0-9_]+")


def leaks(samples: Sequence[Sample]) -> dict[str, float]:
    """By id of a val or test sample: the likeness, 0..1, of the most similar training question about its room.

    Likeness is the Jaccard index of the words; samples whose room training does not have are left out.
    """
    trained: dict[str, list[frozenset[str]]] = defaultdict(list)
    for sample in samples:
        if sample.split == "train":
            trained[room_of(sample.scene_id)].append(_words(sample))
    held_out = (s for s in samples if s.split != "train" and room_of(s.scene_id) in trained)
    return {s.id: max(_likeness(_words(s), seen) for seen in trained[room_of(s.scene_id)]) for s in held_out}


def _words(sample: Sample) -> frozenset[str]:
    return frozenset(_WORD.findall(sample.question.lower()))


def _likeness(one: frozenset[str], two: frozenset[str]) -> float:
    return len(one & two) / len(one | two) if one | two else 1.0
