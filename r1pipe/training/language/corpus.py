"""What the training stages read from disk: samples with their texts, scenes encoded, names of detections."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from r1pipe.datasets import Sample
from r1pipe.files import read_jsonl, read_models
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.store import FeatureStore
from r1pipe.params.run import Paths
from r1pipe.params.section import Split, Task
from r1pipe.scenes.graph import colour_of
from r1pipe.scenes.scene import Scene, load_objects
from r1pipe.training.language.examples import Example, detections, ground


class Corpus(NamedTuple):
    """The examples of some tasks, and the scenes that they ask about."""

    examples: list[Example]
    features: dict[str, SceneFeatures]
    num_left_out: int
    """Samples with a text whose objects were not all detected."""


def read_corpus(paths: Paths, store: FeatureStore, tasks: Collection[Task], split: Split = "train") -> Corpus:
    """The samples of these tasks whose text passed validation, in the order of their ids."""
    thoughts = {str(row["id"]): str(row["cot"]) for row in read_jsonl(paths.cot / f"{split}.jsonl")}
    samples = [s for s in read_models(paths.samples / f"{split}.jsonl", Sample) if s.task in tasks and s.id in thoughts]
    features = {scene_id: store.features(scene_id) for scene_id in sorted({s.scene_id for s in samples})}
    names = {scene_id: detections(load_objects(paths.scenes, scene_id), f) for scene_id, f in features.items()}
    examples = list(ground(samples, thoughts, names))
    return Corpus(examples, features, len(samples) - len(examples))


def detection_words(scenes: Path, features: Mapping[str, SceneFeatures]) -> dict[str, dict[int, str]]:
    """What each detection is, in words: colour and label of the annotated object that it matches, by scene."""
    return {scene_id: _words(Scene.load(scenes, scene_id), found) for scene_id, found in features.items()}


def _words(scene: Scene, found: SceneFeatures) -> dict[int, str]:
    names = detections(scene.objects, found)
    seen = [o for o in scene.objects if o.id in names]
    return {names[o.id]: f"{colour_of(scene, o.id)} {o.label}" for o in seen}
