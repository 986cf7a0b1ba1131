"""Boxes and rigid motions, in metres; z is up.

Shape suffixes: N, M boxes, P points.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating]


class Box(NamedTuple):
    """An axis-aligned box: centre and size, metres, scene frame."""

    cx: float
    cy: float
    cz: float
    dx: float
    dy: float
    dz: float

    @classmethod
    def around(cls, xyz_P3: FloatArray) -> Self:
        """The tightest box around `(P, 3)` points, P >= 1."""
        low, high = xyz_P3.min(axis=0), xyz_P3.max(axis=0)
        return cls(*((low + high) / 2).tolist(), *(high - low).tolist())

    @property
    def centre(self) -> tuple[float, float, float]:
        """Where its middle is."""
        return self[:3]

    @property
    def size(self) -> tuple[float, float, float]:
        """Its extent along x, y and z."""
        return self[3:]

    @property
    def low(self) -> tuple[float, float, float]:
        """Its corner with the smallest coordinates."""
        return (self.cx - self.dx / 2, self.cy - self.dy / 2, self.cz - self.dz / 2)

    @property
    def high(self) -> tuple[float, float, float]:
        """Its corner with the largest coordinates."""
        return (self.cx + self.dx / 2, self.cy + self.dy / 2, self.cz + self.dz / 2)

    @property
    def volume(self) -> float:
        """Cubic metres."""
        return self.dx * self.dy * self.dz

    @property
    def is_proper(self) -> bool:
        """Whether every number is finite and every size is positive."""
        return bool(np.isfinite(self).all()) and min(self.size) > 0


def boxes_array(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """The boxes as rows of `(N, 6)`; `(0, 6)` for none."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 6)


def iou(boxes_N6: ArrayLike, boxes_M6: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair, `(N, M)`, in 0..1.

    A box that is not finite, or that has no positive volume, overlaps with nothing (0, never NaN). Dimensions in front
    of the boxes' are batches: `(B, N, 6)` and `(B, M, 6)` give `(B, N, M)`.
    """
    a = _rows(boxes_N6)[..., :, None, :]
    b = _rows(boxes_M6)[..., None, :, :]
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(a[..., :3] - a[..., 3:] / 2, b[..., :3] - b[..., 3:] / 2)
        high = np.minimum(a[..., :3] + a[..., 3:] / 2, b[..., :3] + b[..., 3:] / 2)
        shared = np.clip(high - low, 0, None).prod(axis=-1)
        union = a[..., 3:].prod(axis=-1) + b[..., 3:].prod(axis=-1) - shared
        ratio = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    proper = _are_proper(a) & _are_proper(b) & np.isfinite(union)
    return np.where(proper, ratio, 0.0)


def _rows(boxes: ArrayLike) -> NDArray[np.float64]:
    """`(..., N, 6)`, also of one box alone and of none."""
    array = np.asarray(boxes, dtype=np.float64)
    return array if array.ndim > 2 else array.reshape(-1, 6)


def _are_proper(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the boxes along the last axis are finite and have positive sizes."""
    return np.asarray(np.isfinite(boxes).all(axis=-1) & (boxes[..., 3:] > 0).all(axis=-1))


def transform(xyz_P3: FloatArray, matrix_44: FloatArray) -> NDArray[np.float64]:
    """Apply a rigid 4x4 matrix (column vectors, as ScanNet writes it) to `(P, 3)` points."""
    return xyz_P3 @ matrix_44[:3, :3].T + matrix_44[:3, 3]
