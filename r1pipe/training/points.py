"""Teach Point Transformer v3 and the detector from annotated scenes.

Shape suffixes: M voxels of a batch, T voxels of things.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss

from r1pipe.geometry import boxes_array, iou
from r1pipe.metrics.detection import Labelled, mean_average_precision
from r1pipe.models.detector import Votes
from r1pipe.models.points import Grid, PointEncoder, PointNetwork, Settings
from r1pipe.params import Detector, PointsBackbone
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene
from r1pipe.training.clouds import Targets, batches, example, vocabulary

Log = Callable[[int, dict[str, float]], None]
WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 5.0
NORM_MOMENTUM = 0.1
"""Of batch norm: the authors' 0.01 lags some hundred steps behind, which is most of a short training."""

_THIN_M = 0.2
"""Errors of a box are measured against its size, but against no less than this."""


def train_points(
    scenes: Sequence[Scene], points: PointsBackbone, detector: Detector, *, seed: int, log: Log | None = None
) -> PointEncoder:
    """Train from random weights: AdamW, one cycle of the learning rate, several clouds a step.

    The same seed and number of threads give the same bytes on the CPU.

    Args:
        scenes: annotated train scenes.
        points: sizes, steps and learning rate.
        detector: what its classes are, and thresholds.
        seed: of weights, order and augmentation.
        log: called every ten steps with the step and its losses.

    Raises:
        DataError: if the scenes have no class of things that is frequent enough.
    """
    classes, structure = vocabulary(scenes, detector)
    settings = Settings(points=points, detector=detector, classes=classes, structure=structure)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PointNetwork(points, len(classes)).to(device).train()
        stream = batches(
            [example(scene, settings) for scene in scenes],
            voxel_size=points.voxel_size,
            batch_size=points.batch_size,
            rng=np.random.default_rng(seed),
        )
        _fit(network, stream, points, log)
    return PointEncoder(settings, network)


def _fit(
    network: PointNetwork, stream: Iterator[tuple[list[Grid], Targets]], points: PointsBackbone, log: Log | None
) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = NORM_MOMENTUM
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, points.learning_rate, points.steps, pct_start=0.2)
    for step in track(range(points.steps), "train the point encoder"):
        grids, targets = next(stream)
        _, votes = network(grids)
        losses = loss_terms(votes, Targets(*(t.to(votes.classes.device) for t in targets)))
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        if log is not None and step % 10 == 0:
            log(step, {name: float(value.detach()) for name, value in losses.items()})


def loss_terms(votes: Votes, targets: Targets) -> dict[str, Tensor]:
    """The losses by name; things count by the square root of their voxels, so that small ones are not lost."""
    class_M = cross_entropy(votes.classes, targets.classes, reduction="none")
    weight_T = targets.weights[targets.things]
    weight_T1 = (weight_T / weight_T.sum().clamp(min=1e-6))[:, None]
    box_T6, colour_T, rgb_T3 = (values[targets.things] for values in votes[1:])
    centre_T3 = (box_T6[:, :3] - targets.box[:, :3]).abs() / targets.size.clamp(min=_THIN_M)
    size_T3 = (box_T6[:, 3:].exp() - targets.size).abs() / targets.size.clamp(min=_THIN_M)
    return {
        "class": (class_M * targets.weights).sum() / targets.weights.sum(),
        "centre": (centre_T3 * weight_T1).sum(),
        "size": (size_T3 * weight_T1).sum(),
        "colour": (cross_entropy(colour_T, targets.colour, reduction="none") * weight_T1[:, 0]).sum(),
        "rgb": l1_loss(rgb_T3, targets.rgb),
    }


def evaluate_detector(encoder: PointEncoder, scenes: Sequence[Scene]) -> dict[str, float]:
    """Mean average precision and recall at IoU 0.25 and 0.5 on scenes not seen in training, all 0..1.

    Targets are the objects of the classes that the encoder may detect. `recall_*` ignores classes: the share of the
    objects that some detection overlaps, which bounds grounding.
    """
    found = [encoder.encode(scene).detections for scene in track(scenes, "detect")]
    predictions = [Labelled(d.boxes, d.labels, d.scores) for d in found]
    targets = [_labelled(encoder, scene) for scene in scenes]
    best = [iou(t.boxes, p.boxes).max(axis=1, initial=0.0) for p, t in zip(predictions, targets, strict=True)]
    best_N = np.concatenate([np.zeros(0), *best])
    scores: dict[str, float] = {}
    for name, threshold in (("25", 0.25), ("50", 0.5)):
        scores[f"map_{name}"] = mean_average_precision(predictions, targets, threshold)
        scores[f"recall_{name}"] = float((best_N >= threshold).mean()) if len(best_N) else float("nan")
    return scores


def _labelled(encoder: PointEncoder, scene: Scene) -> Labelled:
    """The scene's annotated objects of the classes that the encoder may detect."""
    names = [encoder.class_of(thing) for thing in scene.objects]
    known = [i for i, name in enumerate(names) if name in encoder.things]
    boxes_N6 = boxes_array([scene.objects[i].box for i in known])
    return Labelled(boxes_N6, tuple(names[i] for i in known), np.zeros(0))
