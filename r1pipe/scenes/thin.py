"""Thin a cloud to one point a cell of a grid."""

from dataclasses import replace

import numpy as np

from r1pipe.scenes.scene import NO_INSTANCE, Scene


def thin(scene: Scene, voxel_size: float) -> Scene:
    """The scene with at most one point in each cell of a grid of `voxel_size` metres.

    The point kept is one of the smallest object in the cell, so that a thin object on a table does not vanish; the
    objects and their boxes stay as they are.
    """
    cells_P3 = np.floor(scene.xyz.astype(np.float64) / voxel_size).astype(np.int64)
    cells_P3 -= cells_P3.min(axis=0)
    extent = cells_P3.max(axis=0) + 1
    keys_P = np.ravel_multi_index(tuple(cells_P3.T), tuple(extent))
    ids, inverse, counts = np.unique(scene.instance, return_inverse=True, return_counts=True)
    sizes = np.where(ids == NO_INSTANCE, len(scene.xyz), counts)[inverse]
    smallest_first = np.argsort(sizes, kind="stable")
    _, first = np.unique(keys_P[smallest_first], return_index=True)
    kept = np.sort(smallest_first[first])
    return replace(scene, xyz=scene.xyz[kept], rgb=scene.rgb[kept], instance=scene.instance[kept])
