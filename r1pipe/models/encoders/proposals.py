"""Proposals made elsewhere, in the form that Mask3D exports, in place of the detector's own grouping.

A folder holds `<scene_id>.npz` with `pred_masks`, `(P, O)`: booleans, or 0 and 1; a row for each vertex of the scan's
`_vh_clean_2.ply`, in its order, and a column for each proposal. Mask3D's `pred_scores` and `pred_classes`, both `(O,)`,
may stand beside it and are not read: score and class come from the object head, as for the detector's own proposals.

Stage `prepare` keeps one vertex a cell of its grid. So a proposal's box is taken from all its vertices, and its points are
those of its vertices that were kept; a proposal of which none was kept is passed over, as it has nothing to be known by.

Shape suffixes: P vertices, N points of a scene, O proposals. Frame: metres, scene frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.manifest import Location, Manifest
from r1pipe.datasets.npz import read_arrays
from r1pipe.datasets.scannet import MESH, read_scan
from r1pipe.errors import DataError, MissingError
from r1pipe.models.encoders.detector import Proposal, around
from r1pipe.scenes.scene import Scene

MASKS = "pred_masks"
MAX_PROPOSALS = 1000
"""Of one scene; Mask3D exports a few hundred."""

MAX_BYTES = 2**30
"""Largest array of masks that memory is taken for: 600 proposals of 400,000 vertices at four bytes each."""


@dataclass(frozen=True)
class Masks:
    """A folder of masks, and the scans whose vertices they are about."""

    folder: Path
    locations: Mapping[str, Location]

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> Self:
        """The masks in a folder for the scans of a manifest.

        Raises:
            MissingError: if there is no such folder.
        """
        if not folder.is_dir():
            raise MissingError(f"Expected a folder of proposals (<scene_id>.npz) at {folder}, found none.")
        return cls(folder, {location.scene.id: location for location in manifest.locations()})

    def read(self, scene: Scene) -> list[Proposal]:
        """The proposals of a scene.

        Raises:
            MissingError: if the folder has no masks of it, or the scan is gone.
            DataError: if the masks do not fit the scan, or the scene was not prepared from it.
        """
        path = self.folder / f"{scene.id}.npz"
        if not path.is_file():
            raise MissingError(f"Expected the proposals of scene {scene.id} at {path}, found no such file.")
        location = self.locations[scene.id]
        # Without its annotations, for the vertices are all that is asked for.
        xyz_P3 = read_scan(location.root.scans, scene.id, LabelMap({}, {}), annotated=False).scene.xyz
        point_P = _points(scene, xyz_P3, location.folder / f"{scene.id}{MESH}")
        proposals = []
        for mask_P in _read_masks(path, len(xyz_P3)).T:
            points = point_P[mask_P]
            if (points >= 0).any():
                proposals.append(Proposal(points[points >= 0], around(xyz_P3[mask_P])))
        return proposals


def _points(scene: Scene, xyz_P3: NDArray[np.float32], mesh: Path) -> NDArray[np.intp]:
    """The scene's point that each vertex became `(P,)`, -1 for those that `prepare` left out."""
    distance_N, vertex_N = map(np.asarray, cKDTree(xyz_P3).query(scene.xyz))
    if distance_N.any():
        raise DataError(
            f"Expected every point of scene {scene.id} among the {len(xyz_P3)} vertices of {mesh}, found "
            f"{np.count_nonzero(distance_N)} elsewhere, up to {distance_N.max():.3g} m away; run stage prepare again."
        )
    point_P = np.full(len(xyz_P3), -1, np.intp)
    point_P[vertex_N] = np.arange(len(scene.xyz))
    return point_P


def _read_masks(path: Path, num_vertices: int) -> NDArray[np.bool_]:
    """The masks `(P, O)` in a file."""
    shape = (range(num_vertices, num_vertices + 1), range(MAX_PROPOSALS + 1))
    (masks_PO,) = read_arrays(path, {MASKS: shape}, f"{path}", max_bytes=MAX_BYTES)
    is_set_PO: NDArray[np.bool_] = masks_PO == 1
    others = masks_PO[~is_set_PO & (masks_PO != 0)]
    if len(others):
        raise DataError(
            f"Expected 0 and 1 in {MASKS} of {path}, found {len(others)} other values, such as {others[0]}."
        )
    return is_set_PO
