"""Do the objects that the reasoning names cover the right things? Off by default: the answer alone is rewarded."""

from collections.abc import Sequence
from typing import Any

from r1pipe.rewards.completion import Completion, responses
from r1pipe.rewards.perception import Objects, coverage


def reasoning_reward(
    completions: Sequence[Completion],
    *,
    reasoning_boxes: Sequence[Sequence[Sequence[float]] | None],
    objects: Sequence[Objects],
    think: Sequence[bool],
    **_: Any,
) -> list[float | None]:
    """What `perception_reward` gives to the boxes of an answer, given to those that the thinking names: 0..1.

    An object that is named only as a landmark is surplus and costs. Boxes are `(cx, cy, cz, dx, dy, dz)`, metres, scene
    frame. None where the sample has no box or its task does not think; 0 where the completion breaks the grammar.
    """
    texts = [None if said is None else said.thinking for said in responses(completions, think)]
    targets = [boxes if thinks else None for boxes, thinks in zip(reasoning_boxes, think, strict=True)]
    return coverage(texts, targets, objects)
