"""The views of a scene: what its candidate cameras see, as one file.

Shape suffixes: V views, H rows, W columns.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from r1pipe.datasets.frames import Frames, photograph
from r1pipe.errors import DataError, MissingError
from r1pipe.files import whole
from r1pipe.params.scenes import Render
from r1pipe.scenes.scene import Scene
from r1pipe.views.cameras import Cameras
from r1pipe.views.placement import candidates
from r1pipe.views.renderer import NOTHING, render

_ARRAYS = ("rgb", "depth", "index", "photographed", "poses", "intrinsics", "near")


@dataclass(frozen=True)
class Views:
    """V views of one scene: photographs where real frames brought them, else rendered from its points."""

    scene_id: str
    rgb: NDArray[np.uint8]
    """`(V, H, W, 3)`."""

    depth: NDArray[np.float32]
    """`(V, H, W)`, metres along forward, of the scan also where a photograph was taken; 0 where there is nothing."""

    index: NDArray[np.int32]
    """`(V, H, W)`, the point of the scene that a pixel shows; -1 where there is nothing."""

    photographed: NDArray[np.bool_]
    """`(V,)`, whether `rgb` is a photograph."""

    cameras: Cameras

    def save(self, folder: Path) -> None:
        """Write `<scene_id>.safetensors`."""
        cameras = self.cameras
        near_V = np.broadcast_to(cameras.near, len(cameras))
        values = (self.rgb, self.depth, self.index, self.photographed, cameras.poses, cameras.intrinsics, near_V)
        arrays = {name: np.ascontiguousarray(value) for name, value in zip(_ARRAYS, values, strict=True)}
        with whole(folder / f"{self.scene_id}.safetensors") as draft:
            save_file(arrays, draft)

    @classmethod
    def load(cls, folder: Path, scene_id: str) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if the folder has no views of this scene.
            DataError: if the file is damaged.
        """
        path = folder / f"{scene_id}.safetensors"
        if not path.is_file():
            raise MissingError(f"Expected the views of scene {scene_id} at {path}, found no such file.")
        try:
            with safe_open(path, framework="numpy") as file:
                rgb, depth, index, photographed, poses, intrinsics, near = (file.get_tensor(name) for name in _ARRAYS)
        except SafetensorError as error:
            raise DataError(f"Expected views in {path}, found a file that safetensors cannot read: {error}.") from None
        size = (rgb.shape[2], rgb.shape[1])
        return cls(scene_id, rgb, depth, index, photographed, Cameras(poses, intrinsics, size, near))


def render_scene(scene: Scene, params: Render, frames: Frames | None = None) -> Views:
    """Look at a scene from its candidate cameras.

    Args:
        scene: points and colours.
        params: cameras and pictures.
        frames: the scan's real frames, in the scene's aligned frame: they lend their cameras, and their pictures where
            `source` asks for them. Which point a pixel of a photograph shows says the z-buffer of the scan at its pose.

    Raises:
        DataError: if a picture of a frame cannot be read.
    """
    lent, pictures = None, tuple[Path, ...]()
    if frames is not None and len(frames.poses):
        lent, pictures = Cameras(frames.poses, frames.intrinsics, frames.size), frames.colour
    cameras, frame_V = candidates(scene, params, lent)
    seen = render(scene.xyz, scene.rgb, cameras, radius=params.point_radius, fill_holes=params.fill_holes)
    photographed_V = (frame_V >= 0) & (params.source != "rendered")
    for view in np.flatnonzero(photographed_V):
        seen.rgb[view], is_shown_H = photograph(pictures[frame_V[view]], params.size)
        seen.depth[view, ~is_shown_H], seen.index[view, ~is_shown_H] = 0, NOTHING
    return Views(scene.id, seen.rgb, seen.depth, seen.index, photographed_V, cameras)
