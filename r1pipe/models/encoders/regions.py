"""A cloud's features pooled to a fixed number of regions.

Shape suffixes: P points, N regions, D width.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from r1pipe.errors import ModelError

Float32 = NDArray[np.float32]


def pool_regions(xyz_P3: Float32, features_PD: Float32, count: int) -> tuple[Float32, Float32]:
    """Centres `(N, 3)` and mean features `(N, D)` of the points nearest to each of N = `count` farthest points.

    A cloud of fewer points than regions gives some of its points twice.

    Raises:
        ModelError: if the cloud is empty.
    """
    if len(xyz_P3) == 0:
        raise ModelError(f"Expected points to pool to {count} regions, found none.")
    seed_N = farthest_points(xyz_P3, count)
    region_P = np.asarray(cKDTree(xyz_P3[seed_N]).query(xyz_P3)[1], np.intp)
    size_N = np.bincount(region_P, minlength=count)
    ones_P = np.ones(len(xyz_P3), np.float32)
    sums = csr_array((ones_P, (region_P, np.arange(len(xyz_P3)))), shape=(count, len(xyz_P3)))
    pooled = []
    for values in (xyz_P3, features_PD):
        mean = (sums @ values) / np.maximum(size_N, 1)[:, None]
        # Where two seeds are one point, one of the two regions is empty: it stands for that point.
        pooled.append(np.where(size_N[:, None] > 0, mean, values[seed_N]).astype(np.float32))
    return pooled[0], pooled[1]


def farthest_points(xyz_P3: Float32, count: int) -> NDArray[np.intp]:
    """Rows `(count,)`: first the point nearest to the centroid, then always the one farthest from all before it."""
    rows = np.empty(count, np.intp)
    rows[0] = np.square(xyz_P3 - xyz_P3.mean(axis=0)).sum(axis=1).argmin()
    distance_P = np.full(len(xyz_P3), np.inf)
    for i in range(1, count):
        np.minimum(distance_P, np.square(xyz_P3 - xyz_P3[rows[i - 1]]).sum(axis=1), out=distance_P)
        rows[i] = distance_P.argmax()
    return rows
