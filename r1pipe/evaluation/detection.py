"""How well the point encoder finds the objects of scenes it has not seen."""

from collections.abc import Sequence

import numpy as np

from r1pipe.geometry import boxes_array, iou
from r1pipe.metrics.detection import Labelled, mean_average_precision
from r1pipe.models.points import PointEncoder
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene


def evaluate_detector(encoder: PointEncoder, scenes: Sequence[Scene]) -> dict[str, float]:
    """Mean average precision and recall at IoU 0.25 and 0.5, all 0..1.

    Targets are the objects of the classes that the encoder knows. `recall_*` ignores classes: the share of objects
    that some detection overlaps, which bounds grounding.
    """
    found = [encoder.encode(scene).detections for scene in track(scenes, "detect")]
    targets = [labelled(encoder, scene) for scene in scenes]
    predictions = [Labelled(d.boxes, d.labels, d.scores) for d in found]
    best = [_best(p, t) for p, t in zip(predictions, targets, strict=True)]
    best_N = np.concatenate([np.zeros(0), *best])
    scores: dict[str, float] = {}
    for name, threshold in (("25", 0.25), ("50", 0.5)):
        scores[f"map_{name}"] = mean_average_precision(predictions, targets, threshold)
        scores[f"recall_{name}"] = float((best_N >= threshold).mean()) if len(best_N) else float("nan")
    return scores


def labelled(encoder: PointEncoder, scene: Scene) -> Labelled:
    """The scene's annotated objects of the classes that the encoder may detect."""
    names = [(encoder.class_of(thing), thing.box) for thing in scene.objects]
    known = [(name, box) for name, box in names if name in encoder.things]
    return Labelled(boxes_array([box for _, box in known]), tuple(name for name, _ in known), np.zeros(0))


def _best(predicted: Labelled, target: Labelled) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The highest IoU of each target with any detection."""
    return iou(target.boxes, predicted.boxes).max(axis=1, initial=0.0)
