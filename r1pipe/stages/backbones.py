"""Train or resolve the frozen encoders, and measure each beside a control (stage `backbones`)."""

import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from dvclive import Live

from r1pipe.datasets.sample import Sample
from r1pipe.files import read_json, read_models, whole, write_json
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.encoders.depth import DepthEncoder
from r1pipe.models.encoders.image import ImageEncoder
from r1pipe.models.encoders.points import PointEncoder
from r1pipe.params import Params
from r1pipe.params.section import Split
from r1pipe.stages.runner import run
from r1pipe.stages.work import in_progress
from r1pipe.training.encoders.clip import evaluate_clip, train_clip
from r1pipe.training.encoders.depth import evaluate_depth, train_depth
from r1pipe.training.encoders.image import evaluate_image, train_image, untrained
from r1pipe.training.encoders.loop import Log
from r1pipe.training.encoders.material import Material
from r1pipe.training.encoders.points import evaluate_detector, train_points

PROBE_SCENES = 200
"""Train scenes read where nothing is trained: enough for the controls."""

Metrics = dict[str, float]


class Parts:
    """The four encoders, each trained or loaded, with its metrics on rooms of the val split."""

    def __init__(self, params: Params, work: Path) -> None:
        self.params, self.work = params.backbones, work
        self.paths, self.seed = params.paths, params.base.seed

    @cached_property
    def train(self) -> Material:
        """What is learnt from."""
        sections = (self.params.clip, self.params.image, self.params.depth, self.params.points)
        learns = any(section.source == "train" for section in sections)
        return self._material("train", None if learns else PROBE_SCENES)

    @cached_property
    def val(self) -> Material:
        """What is measured on."""
        return self._material("val", None)

    def _material(self, split: Split, max_scenes: int | None) -> Material:
        samples = read_models(self.paths.samples / f"{split}.jsonl", Sample)
        return Material.load(self.paths.scenes, self.paths.views, samples, seed=self.seed, max_scenes=max_scenes)

    def clip(self, log: Log) -> tuple[Clip, Metrics]:
        """Texts, views and patches in one space."""
        section = self.params.clip
        if section.source == "load":
            clip = Clip.load_published(str(section.model), section.pretrained)
        else:
            clip = train_clip(self.train.images, self.train.texts, section, seed=self.seed, log=log)
        return clip, evaluate_clip(clip, self.val.images, self.val.texts)

    def image(self, log: Log) -> tuple[ImageEncoder, Metrics]:
        """What a view shows; learns from the texts of the CLIP before it."""
        section = self.params.image
        if section.source == "load":
            image = ImageEncoder.load(str(section.model), section.revision)
            return image, evaluate_image(image, self.train.images, self.val.images)
        clip = Clip.load(self.work / "clip" / "model")
        image = train_image(self.train.images, clip, section, seed=self.seed, log=log)
        control = evaluate_image(
            untrained(self.train.images, section, seed=self.seed), self.train.images, self.val.images
        )
        metrics = {f"{name}_untrained": control[name] for name in ("class_accuracy", "attribute_accuracy")}
        return image, evaluate_image(image, self.train.images, self.val.images) | metrics

    def depth(self, log: Log) -> tuple[DepthEncoder, Metrics]:
        """How far a view's surfaces are."""
        section = self.params.depth
        if section.source == "load":
            depth = DepthEncoder.load(str(section.model), section.revision)
        else:
            depth = train_depth(self.train.rgb, self.train.depth, section, seed=self.seed, log=log)
        return depth, evaluate_depth(depth, self.val.rgb, self.val.depth)

    def points(self, log: Log) -> tuple[PointEncoder, Metrics]:
        """The cloud's features and the detector."""
        params = self.params
        if params.points.source == "load":
            points = PointEncoder.load(Path(str(params.points.weights)))
        else:
            points = train_points(self.train.scenes, params.points, params.detector, seed=self.seed, log=log)
        return points, evaluate_detector(points, self.val.scenes)


def main(params: Params) -> None:
    """Write the encoders and their metrics; a finished encoder survives an interruption."""
    paths = params.paths
    with in_progress("backbones", [params.base, params.backbones], [paths.scenes, paths.views, paths.samples]) as work:
        parts = Parts(params, work)
        makers = {"clip": parts.clip, "image": parts.image, "depth": parts.depth, "points": parts.points}
        for name, make in makers.items():
            if not (work / name).is_dir():
                _finish(make, work / name)
        # Copied, not moved: killed here, the next run finds the parts where they were.
        with whole(paths.backbones) as models, whole(paths.logs / "backbones") as logs:
            for name in makers:
                shutil.copytree(work / name / "model", models / name)
                shutil.copytree(work / name / "logs", logs / name)
        metrics = {name: read_json(work / name / "metrics.json") for name in makers}
        metrics["detector"] = metrics.pop("points")
        write_json(paths.metrics / "backbones.json", metrics)


def _finish(make: Callable[[Log], tuple[Any, Metrics]], folder: Path) -> None:
    """One part: its model, metrics and course, whole."""
    with whole(folder) as draft:
        draft.mkdir()
        with Live(str(draft / "logs"), save_dvc_exp=False, dvcyaml=None, report=None) as live:
            encoder, metrics = make(lambda step, values: _log(live, step, values))
            for name, value in metrics.items():
                live.summary[name] = value
        encoder.save(draft / "model")
        write_json(draft / "metrics.json", metrics)


def _log(live: Live, step: int, values: dict[str, float]) -> None:
    live.step = step
    for name, value in values.items():
        live.log_metric(name, value)


if __name__ == "__main__":
    run(main)
