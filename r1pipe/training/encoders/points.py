"""Teach Point Transformer v3 and the detector from annotated scenes.

Shape suffixes: M voxels of a batch, T voxels of things.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from r1pipe.geometry import boxes_array, iou
from r1pipe.metrics.detection import Labelled, mean_average_precision
from r1pipe.models.encoders.cloud import Grid, gather
from r1pipe.models.encoders.detector import Proposal, propose
from r1pipe.models.encoders.heads import Described, Votes
from r1pipe.models.encoders.points import LOG_SIZE, PointEncoder, PointNetwork, Settings, thing_probability, voted_boxes
from r1pipe.params.encoders import Detector, PointsBackbone
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene
from r1pipe.training.encoders.clouds import (
    IGNORED,
    Batch,
    Example,
    ObjectTargets,
    Targets,
    annotated,
    batches,
    example,
    object_targets,
    vocabulary,
)
from r1pipe.training.encoders.loop import LOG_EVERY, Log

TargetsT = TypeVar("TargetsT", Targets, ObjectTargets)
WARMUP = 0.2
CLASS_WEIGHT = 0.3
"""Of the class of single voxels: the object head decides, voxels only tell things from the room."""

PROPOSALS_FROM = 0.2
"""Share of the steps after which the object head also learns from what the detector groups by itself."""

WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 5.0
NORM_MOMENTUM = 0.1
"""Of batch norm: the authors' 0.01 lags some hundred steps behind, which is most of a short training."""

_THIN_M = 0.2
"""Errors of a box are measured against its size, but against no less than this."""


def train_points(
    scenes: Sequence[Scene], points: PointsBackbone, detector: Detector, *, seed: int, log: Log | None = None
) -> PointEncoder:
    """Train from random weights, or a loaded backbone: AdamW, one cycle of the learning rate, several clouds a step.

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
        network = PointNetwork(points, len(classes))
        if points.source == "load":
            network.load_backbone(Path(str(points.weights)))
        network = network.to(device).train()
        stream = batches(
            [example(scene, settings) for scene in scenes],
            voxel_size=points.voxel_size,
            batch_size=points.batch_size,
            rng=np.random.default_rng(seed),
        )
        _fit(Course(network, settings.is_thing, detector), stream, points, log)
    return PointEncoder(settings, network)


class Course(NamedTuple):
    """What a training step needs beside its batch."""

    network: PointNetwork
    is_thing: NDArray[np.bool_]
    detector: Detector


def _fit(course: Course, stream: Iterator[Batch], points: PointsBackbone, log: Log | None) -> None:
    network = course.network
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = NORM_MOMENTUM
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, points.learning_rate, points.steps, pct_start=WARMUP)
    for step in track(range(points.steps), "train the point encoder"):
        losses = _losses(course, next(stream), has_proposals=step >= PROPOSALS_FROM * points.steps)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        if log is not None and (step % LOG_EVERY == 0 or step == points.steps - 1):
            log(step, {name: float(value.detach()) for name, value in losses.items()})


def _losses(course: Course, batch: Batch, *, has_proposals: bool) -> dict[str, Tensor]:
    """The losses of one step by name; the detector's own proposals join the annotated objects when they are usable."""
    network, sizes = course.network, [len(grid.cell) for grid in batch.grids]
    features_MD, votes = network(batch.grids)
    each = [Votes(*parts) for parts in zip(*(values.split(sizes) for values in votes), strict=True)]
    taught = [
        _proposals(course, one, grid, said, has_own=has_proposals)
        for one, grid, said in zip(batch.examples, batch.grids, each, strict=True)
    ]
    groups = [
        gather(one.xyz, one.rgb, grid, voted_boxes(said.box, grid), proposals)
        for one, grid, said, proposals in zip(batch.examples, batch.grids, each, taught, strict=True)
    ]
    described = network.describe(features_MD, groups, sizes)
    losses = voxel_losses(votes, _moved(batch.targets, features_MD.device))
    return losses | object_losses(described, _moved(object_targets(batch.examples, taught), features_MD.device))


def _proposals(course: Course, one: Example, grid: Grid, said: Votes, *, has_own: bool) -> list[Proposal]:
    """The annotated things of a scene, and what the detector makes of it so far."""
    known = annotated(one)
    if not has_own:
        return known
    thing_P = thing_probability(said.classes, course.is_thing)[grid.of_point]
    return known + propose(one.xyz, one.rgb, thing_P, voted_boxes(said.box, grid)[grid.of_point], course.detector)


def _moved(targets: TargetsT, device: torch.device) -> TargetsT:
    return type(targets)(*(values.to(device) for values in targets))


def voxel_losses(votes: Votes, targets: Targets) -> dict[str, Tensor]:
    """The losses of class and box; things count by the square root of their voxels, so that small ones are not lost."""
    class_M = cross_entropy(votes.classes, targets.classes, reduction="none")
    weight_T = targets.weights[targets.things]
    weight_T1 = (weight_T / weight_T.sum().clamp(min=1e-6))[:, None]
    box_T6 = embedding(targets.things, votes.box)
    centre_T3 = (box_T6[:, :3] - targets.box[:, :3]).abs() / targets.size.clamp(min=_THIN_M)
    size_T3 = (box_T6[:, 3:].clamp(*LOG_SIZE).exp() - targets.size).abs() / targets.size.clamp(min=_THIN_M)
    return {
        "class": CLASS_WEIGHT * (class_M * targets.weights).sum() / targets.weights.sum(),
        "centre": (centre_T3 * weight_T1).sum(),
        "size": (size_T3 * weight_T1).sum(),
    }


def object_losses(described: Described, targets: ObjectTargets) -> dict[str, Tensor]:
    """The losses of the class and the colour of each group."""
    is_object_O, is_nothing_O = (targets.colour != IGNORED).float(), (targets.classes == 0).float()
    num_objects = is_object_O.sum().clamp(min=1)
    class_O = cross_entropy(described.classes, targets.classes, reduction="none")
    rgb_O = (described.rgb - targets.rgb).abs().mean(dim=1)
    return {
        "object_class": (class_O * is_object_O).sum() / num_objects,
        # Apart: a cloud gives many groups that are nothing and easy to tell, which would drown the objects.
        "nothing": (class_O * is_nothing_O).sum() / is_nothing_O.sum().clamp(min=1),
        "object_colour": cross_entropy(described.colour, targets.colour, reduction="sum") / num_objects,
        "object_rgb": (rgb_O * is_object_O).sum() / num_objects,
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
