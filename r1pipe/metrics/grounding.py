"""Boxes found against boxes asked for.

Sources: ScanRefer's Acc@k (IoU at least k of the one predicted box) and Multi3DRefer's F1@k (optimal one-to-one matching, mean over
queries, a query without target is right only without a prediction). The public evaluators add an epsilon to the union, which turns
an IoU of exactly 0.25 into a miss: it is an argument here, and 0 where nobody asks for it.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from r1pipe.geometry import Box, OrientedBox, boxes_array, iou


def percent(threshold: float) -> str:
    """How a threshold is written in a metric's name: `25` for 0.25."""
    return f"{100 * threshold:.0f}"


def box_iou(predicted: Sequence[Box | OrientedBox], target: Box | OrientedBox, *, epsilon: float = 0.0) -> float:
    """IoU of the first predicted box with the target, 0 where nothing is predicted."""
    return float(iou(predicted[0], target, epsilon=epsilon)[0, 0]) if predicted else 0.0


def f1(
    predicted: Sequence[Box | OrientedBox],
    targets: Sequence[Box | OrientedBox],
    threshold: float,
    *,
    epsilon: float = 0.0,
) -> float:
    """F1 of one query, 0..1: matched pairs of IoU at least the threshold; duplicates stay and cost precision."""
    if not targets or not predicted:
        return float(not targets and not predicted)
    overlap_PT = iou(boxes_array(predicted), boxes_array(targets), epsilon=epsilon)
    rows, columns = linear_sum_assignment(-overlap_PT)
    hits = int(np.count_nonzero(overlap_PT[rows, columns] >= threshold))
    return 2 * hits / (len(predicted) + len(targets))
