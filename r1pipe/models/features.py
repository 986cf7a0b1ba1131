"""What the frozen encoders make of one scene: computed once in `encode`, read by everything after.

Shape suffixes: O detected objects, N pooled points, V candidate views, C CLIP width, D an encoder's width.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from r1pipe.errors import DataError, MissingError
from r1pipe.files import whole
from r1pipe.geometry import Box, FloatArray, iou
from r1pipe.response import identifier

Float32 = NDArray[np.float32]
MATCH_IOU = 0.25
"""A detection stands for an annotated object from this IoU on."""


@dataclass(frozen=True)
class SceneFeatures:
    """The encoders' view of a scene. Boxes, points and cameras: metres, scene frame."""

    scene_id: str
    object_features: Float32
    """`(O, D)`, PTv3 features pooled over each detection's points; best score first."""

    object_boxes: Float32
    """`(O, 6)`, centre and size."""

    object_scores: Float32
    """`(O,)`, 0..1."""

    object_labels: tuple[str, ...]
    """O detected classes, NYU40 names."""

    point_features: Float32
    """`(N, D)`, PTv3 features pooled to a fixed number of regions."""

    point_xyz: Float32
    """`(N, 3)`, the regions' centres."""

    view_features: Float32
    """`(V, D)`, pooled SigLIP-2 hidden states of the candidate views."""

    depth_features: Float32
    """`(V, D)`, pooled Depth-Anything hidden states of the same views."""

    cameras: Float32
    """`(V, 4, 4)`, camera to world; columns right, down, forward, position."""

    clip_images: Float32
    """`(V, C)`, unit length, E_img of each view."""

    clip_points: Float32
    """`(V, C)`, unit length, E_3D(v): lifted CLIP features of the points that v sees, averaged."""

    coverage: Float32
    """`(V,)`, share of the scene's surface that a view adds to the views before it in greedy order."""

    def boxes(self) -> dict[str, Box]:
        """The detected boxes by identifier, `<obj_000>` first."""
        return {identifier(i): Box(*map(float, row)) for i, row in enumerate(self.object_boxes)}

    def match(self, boxes_M6: FloatArray) -> list[int | None]:
        """For each box the detection of highest IoU, or None where none reaches `MATCH_IOU`."""
        if len(self.object_boxes) == 0:
            return [None] * len(boxes_M6)
        overlap_MO = iou(boxes_M6, self.object_boxes)
        best = overlap_MO.argmax(axis=1)
        return [int(i) if row[i] >= MATCH_IOU else None for i, row in zip(best, overlap_MO, strict=True)]

    def save(self, folder: Path) -> None:
        """Write `<scene_id>.safetensors`."""
        arrays = {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self) if f.name not in _TEXT}
        with whole(folder / f"{self.scene_id}.safetensors") as draft:
            save_file(arrays, draft, {"object_labels": json.dumps(self.object_labels)})

    @classmethod
    def load(cls, folder: Path, scene_id: str) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if the folder has no such scene.
            DataError: if the file is damaged.
        """
        path = folder / f"{scene_id}.safetensors"
        if not path.is_file():
            raise MissingError(f"Expected the features of scene {scene_id} at {path}, found no such file.")
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {f.name: file.get_tensor(f.name) for f in fields(cls) if f.name not in _TEXT}
                labels = tuple(json.loads(file.metadata()["object_labels"]))
        except SafetensorError as error:
            raise DataError(
                f"Expected features in {path}, found a file that safetensors cannot read: {error}."
            ) from None
        return cls(scene_id=scene_id, object_labels=labels, **arrays)


_TEXT = ("scene_id", "object_labels")
