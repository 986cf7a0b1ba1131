"""Questions of validation and test that training has seen about the same room, word for word or nearly so.

Only within a room: "what color is the chair?" may be asked of every room there is. Re-scans are one room.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from r1pipe.datasets import Sample
from r1pipe.datasets.manifest import room_of

_WORD = re.compile(r"[a-z0-9_]+")


class Leak(NamedTuple):
    """The training question that is most like a held-out one."""

    likeness: float
    """Jaccard index of the words, 0..1: neither case, nor punctuation, nor order counts."""

    trained: str
    """The training sample's id."""


def leaks(samples: Sequence[Sample]) -> dict[str, Leak]:
    """By id of a val or test sample; those whose room training does not have are left out."""
    trained: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.split == "train":
            trained[room_of(sample.scene_id)].append(sample)
    held_out = (s for s in samples if s.split != "train" and room_of(s.scene_id) in trained)
    return {s.id: max(_leak(s, other) for other in trained[room_of(s.scene_id)]) for s in held_out}


def _leak(held_out: Sample, trained: Sample) -> Leak:
    one, two = _words(held_out), _words(trained)
    return Leak(len(one & two) / len(one | two) if one | two else 1.0, trained.id)


def _words(sample: Sample) -> frozenset[str]:
    return frozenset(_WORD.findall(sample.question.lower()))
