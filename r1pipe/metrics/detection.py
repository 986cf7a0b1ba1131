"""Detected boxes against annotated ones: average precision, as the ScanNet detection benchmarks count it.

Protocol: VoteNet's evaluation (class by class, over all scenes; best score first; a detection is right if the target of
highest IoU in its scene reaches the threshold and no better detection has claimed it; area under the precision envelope
at every recall, VOC's rule since 2010).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.geometry import FloatArray, iou


class Labelled(NamedTuple):
    """Boxes of one scene."""

    boxes: FloatArray
    """`(N, 6)`, centre and size, metres."""

    labels: Sequence[str]

    scores: FloatArray
    """`(N,)`; targets have none: an empty array."""


def mean_average_precision(predictions: Sequence[Labelled], targets: Sequence[Labelled], threshold: float) -> float:
    """The mean over the classes that occur among the targets, 0..1; NaN where there is no target."""
    per_class = average_precisions(predictions, targets, threshold)
    return float(np.mean(list(per_class.values()))) if per_class else float("nan")


def average_precisions(
    predictions: Sequence[Labelled], targets: Sequence[Labelled], threshold: float
) -> dict[str, float]:
    """Average precision of each class that occurs among the targets, 0..1; a row a scene in both sequences."""
    classes = sorted({label for target in targets for label in target.labels})
    return {name: _average_precision(predictions, targets, threshold, name) for name in classes}


def _average_precision(
    predictions: Sequence[Labelled], targets: Sequence[Labelled], threshold: float, name: str
) -> float:
    rows: list[tuple[float, bool]] = []
    num_targets = 0
    for predicted, target in zip(predictions, targets, strict=True):
        wanted_M6, _ = _of_class(target, name)
        found_N6, score_N = _of_class(predicted, name)
        num_targets += len(wanted_M6)
        rows += zip(score_N.tolist(), _hits(found_N6, wanted_M6, threshold), strict=True)
    rows.sort(key=lambda row: -row[0])
    return area_under_envelope(np.array([hit for _, hit in rows], dtype=bool), num_targets)


def _of_class(boxes: Labelled, name: str) -> tuple[FloatArray, FloatArray]:
    """Boxes and scores of one class, best score first."""
    rows = [i for i, label in enumerate(boxes.labels) if label == name]
    if len(boxes.scores) == 0:
        return boxes.boxes[rows], np.zeros(0)
    rows.sort(key=lambda i: -float(boxes.scores[i]))
    return boxes.boxes[rows], boxes.scores[rows]


def _hits(found_N6: FloatArray, wanted_M6: FloatArray, threshold: float) -> list[bool]:
    """Whether each detection, best first, is the first to claim the target that it overlaps most."""
    if len(wanted_M6) == 0:
        return [False] * len(found_N6)
    claimed: set[int] = set()
    hits = []
    for overlap_M in iou(found_N6, wanted_M6):
        best = int(overlap_M.argmax())
        hits.append(bool(overlap_M[best] >= threshold) and best not in claimed)
        if hits[-1]:
            claimed.add(best)
    return hits


def area_under_envelope(hit_N: NDArray[np.bool_], num_targets: int) -> float:
    """Average precision of detections sorted by score, 0..1: every precision is raised to the best one after it."""
    if num_targets == 0 or len(hit_N) == 0:
        return 0.0
    right_N = np.cumsum(hit_N)
    precision_N = right_N / np.arange(1, len(hit_N) + 1)
    envelope_N = np.maximum.accumulate(precision_N[::-1])[::-1]
    return float((envelope_N * hit_N).sum() / num_targets)
