"""Backbones, scenes and views small enough for tests, as the stages before `encode` leave them."""

from pathlib import Path

import numpy as np
import torch

from r1pipe.models.encoders.clip import Clip
from r1pipe.models.encoders.depth import DepthEncoder
from r1pipe.models.encoders.image import ImageEncoder
from r1pipe.models.encoders.points import PointEncoder, PointNetwork, Settings
from r1pipe.params import Params
from r1pipe.params.encoders import Encode
from r1pipe.params.scenes import Render
from r1pipe.scenes.scene import Scene
from r1pipe.views.views import render_scene

ROOT = Path(__file__).parents[1]
RENDER = Render(
    source="rendered",
    size=(32, 32),
    fov=90.0,
    num_ring=3,
    eye_height=1.5,
    max_frames=1,
    point_radius=1,
    fill_holes=False,
)
NUM_VIEWS, NUM_POINTS = 5, 4
ENCODE = Encode(num_points=NUM_POINTS, batch_size=2, proposals=None)


def room(scene_id, seed):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(size=(1500, 3)) * [4, 3, 2.5]
    xyz[::2, 2] = 0
    rgb = rng.integers(0, 256, (1500, 3), dtype=np.uint8)
    return Scene(scene_id, xyz.astype(np.float32), rgb, np.full(1500, -1, np.int32), ())


def write_stages(folder: Path) -> Path:
    """Untrained, real encoders, and four rooms with their views."""
    torch.manual_seed(0)
    tower = {"layers": 1, "width": 32}
    clip = {
        "embed_dim": 16,
        "vision_cfg": {**tower, "image_size": 32, "patch_size": 8, "head_width": 16},
        "text_cfg": {**tower, "context_length": 16, "heads": 2, "vocab_size": 49408},
    }
    Clip.new(clip).save(folder / "backbones" / "clip")
    small = {"image_size": 32, "patch_size": 8, "hidden_size": 32}
    ImageEncoder.new(**small, layers=1).save(folder / "backbones" / "image")
    DepthEncoder.new(**small, layers=4).save(folder / "backbones" / "depth")
    params = Params.load(ROOT / "params.yaml").backbones
    classes = ("nothing", "wall", "chair")
    settings = Settings(points=params.points, detector=params.detector, classes=classes, structure=("wall",))
    PointEncoder(settings, PointNetwork(params.points, len(classes))).save(folder / "backbones" / "points")
    for number in range(4):
        scene = room(f"room{number}_00", number)
        scene.save(folder / "scenes")
        render_scene(scene, RENDER).save(folder / "views")
    return folder
