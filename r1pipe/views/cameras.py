"""Cameras: where a view is taken from, and where a point lands in it.

The conventions, written here once and kept by renderer, frames and features:

- a pose maps camera to world; its columns are right, down, forward and position (OpenCV, ScanNet);
- metres, scene frame (z up); depth is the distance along forward, not along the ray;
- pixel (column u, row v) has its *centre* at (u, v), as OpenCV has it, so an image of width W spans -0.5 .. W - 0.5.

Shape suffixes: V views, P points.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError
from r1pipe.geometry import FloatArray

NEAR = 0.05
"""Metres along forward before which a camera sees nothing, unless it says otherwise."""


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras of one image size."""

    poses: NDArray[np.float64]
    """`(V, 4, 4)`, camera to world."""

    intrinsics: NDArray[np.float64]
    """`(V, 3, 3)`, pixels."""

    size: tuple[int, int]
    """Width and height, pixels."""

    near: NDArray[np.float64] = field(default_factory=lambda: np.full(1, NEAR))
    """`(V,)`, or `(1,)` for all: metres along forward before which nothing is seen (a top view looks past the ceiling)."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same cameras."""
        count = len(self.poses)
        shapes = (self.poses.shape, self.intrinsics.shape)
        if shapes != ((count, 4, 4), (count, 3, 3)) or self.near.shape not in ((1,), (count,)):
            raise DataError(
                f"Expected V poses (4, 4) with V intrinsics (3, 3) and V near planes, found {shapes} and {self.near.shape}."
            )

    def __len__(self) -> int:
        """How many views they take."""
        return len(self.poses)

    def project(self, xyz_P3: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel coordinates `(V, P, 2)` as (u, v), and depth `(V, P)`; NaN pixels where the depth is not positive."""
        rotation_V33, position_V3 = self.poses[:, :3, :3], self.poses[:, :3, 3]
        # A rotation's inverse is its transpose: (x - position) @ R is R^T applied to columns.
        local_VP3 = (xyz_P3[None] - position_V3[:, None]) @ rotation_V33
        depth_VP = local_VP3[..., 2]
        image_VP3 = local_VP3 @ self.intrinsics.transpose(0, 2, 1)
        seen = depth_VP[..., None] > 0
        uv_VP2 = np.divide(
            image_VP3[..., :2], depth_VP[..., None], out=np.full_like(image_VP3[..., :2], np.nan), where=seen
        )
        return uv_VP2, depth_VP

    def fitted(self, size: tuple[int, int]) -> Self:
        """The same cameras for another image size: same horizontal field of view, square pixels, same centre.

        Where the aspect ratio differs, rows are cut or added above and below alike.
        """
        scale = size[0] / self.size[0]
        intrinsics = self.intrinsics.copy()
        intrinsics[:, :2, :2] *= scale
        old_centre, new_centre = (np.asarray(self.size) - 1) / 2, (np.asarray(size) - 1) / 2
        intrinsics[:, :2, 2] = (intrinsics[:, :2, 2] - old_centre) * scale + new_centre
        return type(self)(self.poses, intrinsics, size, self.near)

    def take(self, rows: NDArray[np.intp]) -> Self:
        """The cameras of these rows, in this order."""
        near = np.broadcast_to(self.near, len(self))[rows]
        return type(self)(self.poses[rows], self.intrinsics[rows], self.size, near)


def join(*groups: Cameras) -> Cameras:
    """Several groups of cameras as one.

    Raises:
        DataError: if their image sizes differ.
    """
    sizes = {group.size for group in groups}
    if len(sizes) != 1:
        raise DataError(f"Expected cameras of one image size, found {sorted(sizes)}.")
    return Cameras(
        np.concatenate([group.poses for group in groups]),
        np.concatenate([group.intrinsics for group in groups]),
        groups[0].size,
        np.concatenate([np.broadcast_to(group.near, len(group)) for group in groups]),
    )


def pinhole(size: tuple[int, int], fov: float) -> NDArray[np.float64]:
    """`(3, 3)` intrinsics of a horizontal field of view in degrees: square pixels, the optical axis in the middle."""
    width, height = size
    focal = width / 2 / np.tan(np.radians(fov) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def look_at(eyes_V3: FloatArray, targets_V3: FloatArray) -> NDArray[np.float64]:
    """Poses `(V, 4, 4)` at `eyes` that look at `targets` (`(V, 3)` or `(3,)`), upright; +y is up in a straight look down.

    Raises:
        DataError: if an eye is at its target.
    """
    forward = np.broadcast_to(targets_V3, eyes_V3.shape) - eyes_V3
    length = np.linalg.norm(forward, axis=-1, keepdims=True)
    if (length < 1e-6).any():
        raise DataError(
            f"Expected a camera away from what it looks at, found both at {eyes_V3[length.argmin()].tolist()}."
        )
    forward = forward / length
    steep = np.abs(forward[:, 2:]) > 1 - 1e-6
    up = np.where(steep, np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
    right = np.cross(forward, up)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    poses = np.tile(np.eye(4), (len(eyes_V3), 1, 1))
    poses[:, :3] = np.stack([right, np.cross(forward, right), forward, eyes_V3], axis=-1)
    return poses
