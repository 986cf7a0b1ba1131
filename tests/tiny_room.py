"""One room with seven objects, and samples about it; a larger one that is seen from all sides."""

import numpy as np

from r1pipe.datasets import Sample
from r1pipe.geometry import Box
from r1pipe.params.scenes import Render
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


RENDER = Render(
    source="rendered",
    size=(48, 32),
    fov=80.0,
    num_ring=5,
    eye_height=1.5,
    max_frames=3,
    point_radius=1,
    fill_holes=False,
)


def box_room(seed=0, size=(6.0, 4.0, 2.6), ceiling=True):
    """An empty box room with a red block in it, and a white ceiling."""
    rng = np.random.default_rng(seed)
    half = np.array(size) / 2
    walls = rng.uniform(-half, half, (20_000, 3))
    face = rng.integers(0, 5, len(walls))
    for number, (axis, side) in enumerate([(0, -1), (0, 1), (1, -1), (1, 1), (2, -1)]):
        walls[face == number, axis] = side * half[axis]
    block = rng.uniform([0.5, -0.5, -half[2]], [1.5, 0.5, -half[2] + 0.8], (3_000, 3))
    top = rng.uniform([-half[0], -half[1], half[2]], [half[0], half[1], half[2]], (6_000 if ceiling else 0, 3))
    xyz = np.concatenate([walls, block, top]) + [10, 20, half[2]]
    colours = [(90, 90, 90)] * len(walls) + [(255, 0, 0)] * len(block) + [(255, 255, 255)] * len(top)
    return Scene("room_00", xyz.astype(np.float32), np.array(colours, np.uint8), np.full(len(xyz), -1, np.int32), ())
