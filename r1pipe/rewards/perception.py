"""Do the boxes of the answer cover the right things? (paper, section 3.2)."""

from collections.abc import Mapping, Sequence
from typing import Any

from scipy.optimize import linear_sum_assignment

from r1pipe.geometry import Box, boxes_array, iou
from r1pipe.response import Response, answer_boxes
from r1pipe.rewards.completion import Completion, responses

MAX_BOXES = 64
"""Boxes of one answer that are matched; the others count as surplus, so that a flood of boxes costs the model, not us."""

Objects = Mapping[str, Sequence[float] | None]
"""Identifier to box; None where an identifier names nothing (a column of dictionaries has every key in every row)."""


def perception_reward(
    completions: Sequence[Completion],
    *,
    target_boxes: Sequence[Sequence[Sequence[float]] | None],
    objects: Sequence[Objects],
    think: Sequence[bool],
    **_: Any,
) -> list[float | None]:
    """Sum of IoU under the best one-to-one matching, over max(predicted, targets): 0..1, missing and surplus boxes cost.

    Boxes are `(cx, cy, cz, dx, dy, dz)`, metres, scene frame. None where the sample has no target box; 0 where the
    completion breaks the grammar.
    """
    rows = zip(responses(completions, think), target_boxes, objects, strict=True)
    return [None if targets is None else _overlap(response, targets, named) for response, targets, named in rows]


def _overlap(response: Response | None, targets: Sequence[Sequence[float]], objects: Objects) -> float:
    """The reward of one response to a sample with targets; nothing asked for and nothing given is right."""
    if response is None:
        return 0.0
    predicted = answer_boxes(response.answer, {name: box for name, box in objects.items() if box is not None})
    longest = max(len(predicted), len(targets))
    if longest == 0:
        return 1.0
    overlap = iou(boxes_array(predicted[:MAX_BOXES]), boxes_array([Box(*box) for box in targets]))
    return float(overlap[linear_sum_assignment(overlap, maximize=True)].sum()) / longest
