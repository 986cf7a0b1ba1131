"""Pictures of a room for a reader that can see: some of its candidate views, evenly spread, as PNG."""

import hashlib
import io

import numpy as np
from PIL import Image

from r1pipe.params.scenes import Render
from r1pipe.scenes import Scene
from r1pipe.synthesis.prompts import Picture
from r1pipe.views.views import render_scene


def pictures(scene: Scene, render: Render, num_views: int) -> tuple[Picture, ...]:
    """At most `num_views` pictures, rendered from the scene's points."""
    rgb_VHW3 = render_scene(scene, render).rgb
    chosen = np.unique(np.linspace(0, len(rgb_VHW3) - 1, num_views).round().astype(int))
    return tuple(_picture(rgb_VHW3[view]) for view in chosen)


def _picture(rgb_HW3: np.ndarray) -> Picture:
    file = io.BytesIO()
    Image.fromarray(rgb_HW3).save(file, format="PNG")
    return Picture(file.getvalue(), hashlib.sha256(rgb_HW3.tobytes() + str(rgb_HW3.shape).encode()).hexdigest())
