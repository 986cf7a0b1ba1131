"""A served model small enough for tests: a real processor, store, view selector and renderer; made-up features."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from r1pipe.models.encoders.texts import TextTable
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1Processor, SceneReader
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.hearing import Completion
from r1pipe.models.r1.language import train_tokenizer
from r1pipe.models.r1.store import FeatureStore
from r1pipe.params import Params
from r1pipe.scenes.scene import NO_INSTANCE, Scene
from r1pipe.serving import api
from r1pipe.serving.served import ServedModel, Settings
from r1pipe.training.language.setup import build_model
from r1pipe.views.views import Views, render_scene

ROOT = Path(__file__).parents[1]
SCENE = "room0000_00"
COMPLETION = "<think>the chair <obj_002> is red.</think><answer>red <obj_001></answer>"
QUESTIONS = ["what color is the chair?", "describe object.", "describe the room.", "the chair."]


def scene(scene_id: str = SCENE, *, num_points: int = 3000) -> Scene:
    """A room's floor and walls."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform((0, 0, 0), (4, 3, 2.5), (num_points, 3)).astype(np.float32)
    xyz[np.arange(num_points), rng.integers(0, 3, num_points)] = 0
    rgb = rng.integers(0, 256, (num_points, 3)).astype(np.uint8)
    return Scene(scene_id, xyz, rgb, np.full(num_points, NO_INSTANCE, np.int32), ())


class MadeUpEncoder:
    """Features drawn from the scene's points: the right shapes, five objects."""

    def encode(self, scene: Scene, views: Views) -> SceneFeatures:
        rng = np.random.default_rng(len(scene.xyz))
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        unit = lambda *shape: (x := normal(*shape)) / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
        centres = 0.3 * normal(5, 3) + np.array([2, 1.5, 1.2], np.float32)  # inside the room
        boxes = np.concatenate([centres, np.ones((5, 3), np.float32)], axis=1)
        count = len(views.cameras)
        return SceneFeatures(
            scene.id, normal(5, 16), boxes, np.linspace(0.9, 0.5, 5, dtype=np.float32), ("chair",) * 5,
            normal(4, 16), normal(4, 3), normal(count, 12), normal(count, 8), views.cameras.poses.astype(np.float32),
            unit(count, 10), unit(count, 10), np.ones(count, np.float32) / count,
        )  # fmt: skip


class FixedAnswerer(Answerer):
    """An untrained model that says one thing; what it looks at is its own."""

    def answer(self, requests, *, whole, grown, **options):
        for row in range(len(requests)):
            for length in (20, len(COMPLETION)) if row in grown else ():
                grown[row](COMPLETION[:length])
            whole(row, Completion(COMPLETION, 12))


def write_room(root: Path, params: Params) -> SceneFeatures:
    """One encoded room with its cloud and views, where a bundle has them."""
    room = scene()
    views = render_scene(room, params.render)
    features = MadeUpEncoder().encode(room, views)
    room.save(root / "data/scenes")
    views.save(root / "data/views")
    features.save(root / "data/features")
    rng = np.random.default_rng(1)
    embeddings = rng.standard_normal((len(QUESTIONS), 10)).astype(np.float32)
    TextTable(QUESTIONS, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).save(root / "data/features")
    return features


def client_of(served: ServedModel, *, raise_server_exceptions: bool = True, **options: Any) -> TestClient:
    """A client of the API over a served model; `options` are those of the application."""
    app = api.create_app(**options)
    api.attach(app, served)
    return TestClient(app, raise_server_exceptions=raise_server_exceptions)


def served_model(root: Path, kind: type[Answerer] = FixedAnswerer, **limits: float) -> ServedModel:
    """A served model of one room; `limits` replace those of `params.serve`."""
    params = Params.load(ROOT / "params.yaml")
    features = write_room(root, params)
    store = FeatureStore.load(root / "data/features")
    sizes = {"language": None, "num_objects": 8, "num_views": 2, "hidden_size": 32, "num_hidden_layers": 2}
    shape = params.model.model_copy(update=sizes)
    tokenizer = train_tokenizer(["qa think: what color is the chair? red"], 400, shape.num_objects)
    model = build_model(shape, tokenizer, features, lora=None, view_weight_pull=0.1, seed=0)
    settings = Settings.of(params)
    return ServedModel(
        kind(model, R1Processor(SceneReader(model.config, store), tokenizer), store),
        replace(settings, serve=settings.serve.model_copy(update=limits)),
        name="r1:test",
        lineage={"name": "r1"},
        scenes=root / "data/scenes",
        views=root / "data/views",
        encoders=MadeUpEncoder,
    )
