"""A scene: an aligned, coloured point cloud with its annotated objects.

Shape suffixes: P points. Frame: metres, z up, axis-aligned.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from r1pipe.errors import DataError, MissingError
from r1pipe.files import whole
from r1pipe.geometry import Box

MAX_EXTENT_M = 100.0
"""Widest room; one that is wider is most likely in millimetres."""

NO_INSTANCE = -1
"""The `instance` of a point that belongs to no object."""


class SceneObject(NamedTuple):
    """An annotated object of a scene."""

    id: int
    """ScanNet's `objectId`; the number in `<obj_007>` of an annotation."""

    label: str
    """The raw label, as the annotator wrote it."""

    nyu40: int
    """NYU40 class, 1..40; 0 where the label has none."""

    box: Box


@dataclass(frozen=True)
class Scene:
    """One room, scanned."""

    id: str
    xyz: NDArray[np.float32]
    """`(P, 3)`, metres."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""

    instance: NDArray[np.int32]
    """`(P,)`, the object id of each point, -1 for none."""

    objects: tuple[SceneObject, ...]

    def __post_init__(self) -> None:
        """Refuse what is no room in metres: every cloud becomes a scene, so nothing after this has to ask.

        Raises:
            DataError: if an array has another shape or type, there are no points, a coordinate is not finite, or the
                room is wider than any.
        """
        self._check_arrays()
        broken_P = ~np.isfinite(self.xyz).all(axis=1)
        if broken_P.any():
            raise DataError(
                f"Expected finite coordinates in scene {self.id}, found NaN or infinity in {broken_P.sum():,} of "
                f"{len(self.xyz):,} points, the first at row {broken_P.argmax()}."
            )
        extent = float((self.xyz.max(axis=0).astype(np.float64) - self.xyz.min(axis=0)).max())
        if extent > MAX_EXTENT_M:
            raise DataError(
                f"Expected a room in metres, at most {MAX_EXTENT_M:g} across, in scene {self.id}, found {extent:,.0f}, "
                "as if in millimetres."
            )

    def _check_arrays(self) -> None:
        count = len(self.xyz)
        wanted = {"xyz": ((count, 3), "float32"), "rgb": ((count, 3), "uint8"), "instance": ((count,), "int32")}
        for name, (shape, dtype) in wanted.items():
            array = getattr(self, name)
            if count == 0 or array.shape != shape or array.dtype != dtype:
                raise DataError(
                    f"Expected {name} as {dtype} {shape if count else 'of some points'} in scene {self.id}, found "
                    f"{array.dtype} {array.shape}."
                )

    def object(self, object_id: int) -> SceneObject:
        """The object of this id.

        Raises:
            DataError: if the scene has none.
        """
        for candidate in self.objects:
            if candidate.id == object_id:
                return candidate
        raise DataError(
            f"Expected an object of scene {self.id} (ids 0 to {len(self.objects) - 1}), found id {object_id}."
        )

    def save(self, folder: Path) -> None:
        """Write `<id>.safetensors`: the arrays, and the objects as JSON in its header."""
        # One metadata key only: safetensors writes several in no fixed order.
        objects = json.dumps([[o.id, o.label, o.nyu40, list(o.box)] for o in self.objects])
        arrays = {"xyz": self.xyz, "rgb": self.rgb, "instance": self.instance}
        with whole(folder / f"{self.id}.safetensors") as draft:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft, {"objects": objects}
            )

    @classmethod
    def load(cls, folder: Path, scene_id: str) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if the folder has no such scene.
            DataError: if the file is damaged.
        """
        with _open(folder, scene_id) as file:
            arrays = {name: file.get_tensor(name) for name in ("xyz", "rgb", "instance")}
            return cls(scene_id, objects=_objects(file), **arrays)


@contextmanager
def _open(folder: Path, scene_id: str) -> Iterator[Any]:
    """A scene's file, open; damage found on the way is a DataError."""
    path = folder / f"{scene_id}.safetensors"
    if not path.is_file():
        raise MissingError(f"Expected scene {scene_id} at {path}, found no such file.")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise DataError(f"Expected a scene in {path}, found a file that safetensors cannot read: {error}.") from None


def _objects(file: Any) -> tuple[SceneObject, ...]:
    """The objects in a file's header."""
    rows = json.loads(file.metadata()["objects"])
    return tuple(SceneObject(number, label, nyu40, Box(*box)) for number, label, nyu40, box in rows)


def load_objects(folder: Path, scene_id: str) -> tuple[SceneObject, ...]:
    """The objects of a saved scene, without its points.

    Raises:
        MissingError: if the folder has no such scene.
    """
    with _open(folder, scene_id) as file:
        return _objects(file)


def scene_ids(folder: Path) -> list[str]:
    """The scenes of a folder, sorted; a draft of `files.whole` is none."""
    return sorted(path.stem for path in folder.glob("[!.]*.safetensors"))
