"""What a reader of annotations must know of the scenes: their splits, objects and frames."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.scannet import Scan
from r1pipe.errors import DataError
from r1pipe.params.section import Split
from r1pipe.scenes.scene import SceneObject

logger = logging.getLogger(__name__)


class Room(NamedTuple):
    """A scene without its points."""

    split: Split
    objects: Mapping[int, SceneObject]
    alignment: NDArray[np.float64]
    """`(4, 4)`, from the frame of the scan's files to the frame of the scene."""

    raw_centre: tuple[float, float, float]
    """Middle of the mesh's bounds in the frame of the scan's files, metres."""

    @classmethod
    def of(cls, scan: Scan, split: Split) -> "Room":
        """The room of a scan."""
        return cls(split, {o.id: o for o in scan.scene.objects}, scan.alignment, scan.raw_centre)

    def pick(self, object_ids: Iterable[int], where: str) -> tuple[SceneObject, ...]:
        """The objects of these ids.

        Raises:
            DataError: if the scene has no object of an id.
        """
        ids = tuple(object_ids)
        unknown = [i for i in ids if i not in self.objects]
        if unknown:
            known = ", ".join(map(str, sorted(self.objects))) or "none"
            raise DataError(f"Expected an object of the scene (ids {known}) in {where}, found id {unknown[0]}.")
        return tuple(self.objects[i] for i in ids)


@dataclass(frozen=True)
class Catalog:
    """The scenes of one root.

    An annotation's split is its scene's: published files disagree about a scene (3D-LLM's val scenes are ScanNet train
    scenes), and a scene in two splits would leak.
    """

    splits: Mapping[str, Split]
    """Every scene of the official lists."""

    rooms: Mapping[str, Room]
    """The scenes that are on this disk."""

    labels: LabelMap
    absent: Counter[str] = field(default_factory=Counter)
    """Annotations passed over because their scan is not on this disk, by scene."""

    def room(self, scene_id: str, where: str) -> Room | None:
        """The room, or None where the lists have the scene but the disk has not.

        Raises:
            DataError: if no list has the scene.
        """
        if scene_id in self.rooms:
            return self.rooms[scene_id]
        if scene_id not in self.splits:
            known = sorted(self.splits)
            range_ = f"{len(known)} scenes, {known[0]} to {known[-1]}" if known else "none"
            raise DataError(f"Expected a scene of the official lists ({range_}) in {where}, found {scene_id!r}.")
        self.absent[scene_id] += 1
        return None
