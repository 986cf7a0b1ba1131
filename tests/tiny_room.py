"""One room with seven objects, and samples about it."""

import numpy as np

from r1pipe.datasets import Sample
from r1pipe.geometry import Box
from r1pipe.scenes import Scene, SceneObject
from r1pipe.scenes.colours import NAMED

OBJECTS = (
    (0, "floor", "gray", (0, 0, 0, 6, 6, 0.1)),
    (1, "chair", "red", (1, 0, 0.5, 0.5, 0.5, 1.0)),
    (2, "chair", "blue", (-2, 0, 0.6, 0.8, 0.8, 1.2)),
    (3, "table", "brown", (2, 0, 0.4, 1.0, 1.0, 0.8)),
    (4, "lamp", "white", (2, 0, 1.0, 0.2, 0.2, 0.4)),
    (5, "trash can", "black", (0, 2.5, 0.3, 0.3, 0.3, 0.6)),
    (6, "bookshelf", "brown", (-2, -2.5, 1.0, 1.0, 0.6, 2.0)),
)


def room(scene_id="scene0000_00"):
    rng = np.random.default_rng(0)
    clouds = [(i, colour, rng.uniform(-0.5, 0.5, (40, 3)) * box[3:] + box[:3]) for i, _, colour, box in OBJECTS]
    return Scene(
        scene_id,
        np.concatenate([xyz for _, _, xyz in clouds]).astype(np.float32),
        np.concatenate([np.tile(NAMED[colour], (40, 1)) for _, colour, _ in clouds]).astype(np.uint8),
        np.repeat([i for i, _, _ in clouds], 40).astype(np.int32),
        tuple(SceneObject(i, label, 0, Box(*map(float, box))) for i, label, _, box in OBJECTS),
    )


def ask(question, answer, *, task="qa", key="0", object_ids=(), pose=None, history=(), scene_id="scene0000_00"):
    answers = () if task == "grounding" else (answer,)
    return Sample(
        id=f"test-{key}", scene_id=scene_id, task=task, question=question, answers=answers, pose=pose, history=history,
        object_ids=object_ids, source="scanqa", split="train",
    )  # fmt: skip
