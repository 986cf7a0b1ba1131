"""Do the boxes of the answer cover the right things? (paper, section 3.2).

Shape suffixes: N predicted boxes, M targets.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from r1pipe.geometry import Box, boxes_array, iou
from r1pipe.response import answer_boxes
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
    texts = [None if said is None else said.answer for said in responses(completions, think)]
    return coverage(texts, target_boxes, objects)


def coverage(
    texts: Sequence[str | None],
    target_boxes: Sequence[Sequence[Sequence[float]] | None],
    objects: Sequence[Objects],
) -> list[float | None]:
    """Sum of IoU under the best one-to-one matching of a text's boxes with its targets, over the larger number of them.

    Args:
        texts: None is worth 0.
        target_boxes: `(cx, cy, cz, dx, dy, dz)` each, metres, scene frame; None gives None.
        objects: what a text can name, by identifier.
    """
    values = [None if targets is None else 0.0 for targets in target_boxes]
    rows = [
        _Row(i, _predicted(text, objects[i]), [Box(*box) for box in targets])
        for i, (text, targets) in enumerate(zip(texts, target_boxes, strict=True))
        if text is not None and targets is not None
    ]
    for together in _by_targets(rows):
        overlap_NM = iou(
            boxes_array([box for row in together for box in row.matched]), boxes_array(together[0].targets)
        )
        ends = np.cumsum([len(row.matched) for row in together])
        for row, own_NM in zip(together, np.split(overlap_NM, ends[:-1]), strict=True):
            values[row.place] = row.value(own_NM)
    return values


class _Row(NamedTuple):
    """A text that is measured against targets."""

    place: int
    """In the batch."""

    predicted: list[Box]
    targets: list[Box]

    @property
    def matched(self) -> list[Box]:
        return self.predicted[: max(MAX_BOXES, len(self.targets))]

    def value(self, overlap_NM: NDArray[np.float64]) -> float:
        """The reward; nothing asked for and nothing given is right."""
        longest = max(len(self.predicted), len(self.targets))
        if longest == 0:
            return 1.0
        return float(overlap_NM[linear_sum_assignment(overlap_NM, maximize=True)].sum()) / longest


def _predicted(text: str, objects: Objects) -> list[Box]:
    return answer_boxes(text, {name: box for name, box in objects.items() if box is not None})


def _by_targets(rows: Sequence[_Row]) -> list[list[_Row]]:
    """The rows that share their targets, as the completions of one prompt do: their overlaps are one call."""
    groups: dict[tuple[Box, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.targets)].append(row)
    return list(groups.values())
