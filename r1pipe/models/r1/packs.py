"""The scene pack: everything the model reads of a scene, as one row of `pixel_values`.

Trainers carry one tensor a sample, so a scene is one `(N, E)` array, rows in this order:

    objects       num_objects     [1 | box 6 | score 1 | features]      the leading 1 says that the row holds an object
    points        num_points      [xyz 3 | features]
    views         num_candidates  [position 3, forward 3 | features]
    depths        num_candidates  [position 3, forward 3 | features]
    view scores   num_candidates  [text3d, image3d, clip]

Rows are padded with zeros to the widest, E. A pack of zeros is the blind control: no object, no score.

Shape suffixes: B batch, N rows, E width, O objects, P points, V candidate views.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1pipe.errors import ModelError
from r1pipe.models.features import Float32, SceneFeatures

OBJECT_HEAD, POINT_HEAD, CAMERA_HEAD, NUM_SCORES = 8, 3, 6, 3


class PackShape(Protocol):
    """The counts and widths that fix a pack's layout; `R1Config` has them."""

    num_objects: int
    object_width: int
    num_points: int
    point_width: int
    num_candidates: int
    view_width: int
    depth_width: int


class Pack(NamedTuple):
    """A batch of scene packs, taken apart."""

    is_object: Tensor
    """`(B, O)`, 1 where the row holds an object."""

    boxes: Tensor
    """`(B, O, 6)`."""

    object_scores: Tensor
    """`(B, O, 1)`."""

    objects: Tensor
    """`(B, O, object_width)`."""

    point_xyz: Tensor
    """`(B, P, 3)`."""

    points: Tensor
    """`(B, P, point_width)`."""

    cameras: Tensor
    """`(B, V, 6)`, position and forward axis."""

    views: Tensor
    """`(B, V, view_width)`."""

    depths: Tensor
    """`(B, V, depth_width)`."""

    view_scores: Tensor
    """`(B, V, 3)`: text3d, image3d, clip."""


def pack_size(shape: PackShape) -> tuple[int, int]:
    """N and E of a pack of this shape."""
    heads = (OBJECT_HEAD + shape.object_width, POINT_HEAD + shape.point_width)
    tails = (CAMERA_HEAD + shape.view_width, CAMERA_HEAD + shape.depth_width)
    return shape.num_objects + shape.num_points + 3 * shape.num_candidates, max(heads + tails)


def pack(features: SceneFeatures, view_scores_V3: Float32, shape: PackShape) -> Float32:
    """The `(N, E)` row of a scene; the lowest-scored objects beyond `num_objects` are left out.

    Raises:
        ModelError: if the features do not have the counts and widths of `shape`.
    """
    _check(features, shape)
    num_rows, width = pack_size(shape)
    count = min(len(features.object_boxes), shape.num_objects)
    objects = np.concatenate(
        [
            np.ones((count, 1)),
            features.object_boxes[:count],
            features.object_scores[:count, None],
            features.object_features[:count],
        ],
        axis=1,
    )
    cameras = np.concatenate([features.cameras[:, :3, 3], features.cameras[:, :3, 2]], axis=1)
    parts = (
        (0, objects),
        (shape.num_objects, np.concatenate([features.point_xyz, features.point_features], axis=1)),
        (shape.num_objects + shape.num_points, np.concatenate([cameras, features.view_features], axis=1)),
        (num_rows - 2 * shape.num_candidates, np.concatenate([cameras, features.depth_features], axis=1)),
        (num_rows - shape.num_candidates, view_scores_V3),
    )
    row_NE: NDArray[np.float32] = np.zeros((num_rows, width), np.float32)
    for start, part in parts:
        row_NE[start : start + len(part), : part.shape[1]] = part
    return row_NE


def _check(features: SceneFeatures, shape: PackShape) -> None:
    """Refuse features that a pack of this shape cannot hold."""
    expected = {
        "object width": (shape.object_width, features.object_features.shape[1]),
        "points": ((shape.num_points, shape.point_width), features.point_features.shape),
        "views": ((shape.num_candidates, shape.view_width), features.view_features.shape),
        "depths": ((shape.num_candidates, shape.depth_width), features.depth_features.shape),
    }
    for name, (wanted, found) in expected.items():
        if wanted != found:
            raise ModelError(
                f"Expected {name} of {wanted} in the features of scene {features.scene_id}, found {found}."
            )


def unpack(packs_BNE: Tensor, shape: PackShape) -> Pack:
    """The parts of a batch of packs.

    Raises:
        ModelError: if the rows or their width are not those of `shape`.
    """
    if tuple(packs_BNE.shape[1:]) != pack_size(shape):
        raise ModelError(f"Expected scene packs of {pack_size(shape)}, found {tuple(packs_BNE.shape[1:])}.")
    counts = [shape.num_objects, shape.num_points] + 3 * [shape.num_candidates]
    objects, points, views, depths, scores = torch.split(packs_BNE, counts, dim=1)
    return Pack(
        is_object=objects[..., 0],
        boxes=objects[..., 1:7],
        object_scores=objects[..., 7:OBJECT_HEAD],
        objects=objects[..., OBJECT_HEAD : OBJECT_HEAD + shape.object_width],
        point_xyz=points[..., :POINT_HEAD],
        points=points[..., POINT_HEAD : POINT_HEAD + shape.point_width],
        cameras=views[..., :CAMERA_HEAD],
        views=views[..., CAMERA_HEAD : CAMERA_HEAD + shape.view_width],
        depths=depths[..., CAMERA_HEAD : CAMERA_HEAD + shape.depth_width],
        view_scores=scores[..., :NUM_SCORES],
    )
