"""Boxes and rigid motions, in metres; z is up.

Shape suffixes: N, M boxes, P points, W numbers a box (6 axis-aligned, 7 with a yaw, 9 with three angles).
"""

from collections.abc import Sequence
from itertools import combinations
from math import atan2
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
    def corners(self) -> NDArray[np.float64]:
        """`(8, 3)`, metres; `EDGES` are pairs of them."""
        corners_83: NDArray[np.float64] = np.array(self.centre) + _SIGNS * np.array(self.size) / 2
        return corners_83

    @property
    def volume(self) -> float:
        """Cubic metres."""
        return self.dx * self.dy * self.dz

    @property
    def is_proper(self) -> bool:
        """Whether every number is finite and every size is positive."""
        return bool(np.isfinite(self).all()) and min(self.size) > 0


class OrientedBox(NamedTuple):
    """A box that may be turned: centre, size, and the angles of `rotation`, radians; metres, scene frame."""

    cx: float
    cy: float
    cz: float
    dx: float
    dy: float
    dz: float
    alpha: float
    """About z: the yaw, counter-clockwise seen from above."""
    beta: float = 0.0
    gamma: float = 0.0

    @classmethod
    def around_corners(cls, xyz_83: FloatArray) -> Self | None:
        """The box of these 8 corners in any order, None where they are not a box's (to 0.1 % of its diagonal)."""
        centre = xyz_83.mean(axis=0)
        arms_83 = xyz_83 - centre
        corner = arms_83[0]
        by_distance = np.argsort(np.linalg.norm(arms_83 - corner, axis=1), kind="stable")
        for picked in combinations(by_distance[1:], 3):
            edges_33 = arms_83[list(picked)] - corner
            size = np.linalg.norm(edges_33, axis=1)
            tolerance = 1e-3 * max(float(np.linalg.norm(corner)), 1e-12)
            if size.min() <= tolerance:
                continue
            axes_33 = _right_handed(edges_33 / size[:, None])
            made_83 = (_SIGNS * size / 2) @ axes_33
            gap_88 = np.linalg.norm(made_83[:, None] - arms_83[None], axis=-1)
            if gap_88.min(axis=1).max() <= tolerance:
                return cls(*(*centre.tolist(), *size.tolist(), *_angles(axes_33.T)))
        return None


def boxes_array(boxes: Sequence[Box | OrientedBox]) -> NDArray[np.float64]:
    """The boxes as rows of `(N, 6)`, of `(N, 9)` where one of them is turned; `(0, 6)` for none."""
    width = max((len(box) for box in boxes), default=6)
    return np.array([(*box, *(0.0,) * (width - len(box))) for box in boxes], dtype=np.float64).reshape(-1, width)


def rotation(angles_N3: FloatArray) -> NDArray[np.float64]:
    """`(N, 3, 3)` matrices R_z(alpha) R_x(beta) R_y(gamma) of `(N, 3)` radians: EmbodiedScan's order, yaw first."""
    (ca, cb, cg), (sa, sb, sg) = np.cos(angles_N3).T, np.sin(angles_N3).T
    rows = (
        (ca * cg - sa * sb * sg, -sa * cb, ca * sg + sa * sb * cg),
        (sa * cg + ca * sb * sg, ca * cb, sa * sg - ca * sb * cg),
        (-cb * sg, sb, cb * cg),
    )
    return np.moveaxis(np.array(rows), -1, 0)


def iou(boxes_NW: ArrayLike, boxes_MW: ArrayLike, *, epsilon: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of every pair, `(N, M)`, in 0..1; exact, also for turned boxes.

    A box that is not finite, or that has no positive volume, overlaps with nothing (0, never NaN). Boxes whose faces
    are parallel to the axes, turned by a quarter or not, take the fast path.

    Args:
        boxes_NW: rows of 6, 7 or 9 numbers.
        boxes_MW: rows of 6, 7 or 9 numbers.
        epsilon: added to the union: ScanRefer's evaluator and its descendants add 1e-8, so that a true 0.5 is a miss.
    """
    a, b = _settle(boxes_NW), _settle(boxes_MW)
    one, two = a.boxes[:, None], b.boxes[None]
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(one[..., :3] - one[..., 3:] / 2, two[..., :3] - two[..., 3:] / 2)
        high = np.minimum(one[..., :3] + one[..., 3:] / 2, two[..., :3] + two[..., 3:] / 2)
        shared = np.clip(high - low, 0, None).prod(axis=-1)
        proper = _are_proper(one) & _are_proper(two)
        turned = (a.is_turned[:, None] | b.is_turned[None]) & proper
        for n, m in np.argwhere(turned):
            shared[n, m] = _shared_volume(a, int(n), b, int(m))
        union = one[..., 3:].prod(axis=-1) + two[..., 3:].prod(axis=-1) - shared
        ratio = np.divide(shared, union + epsilon, out=np.zeros_like(shared), where=union > 0)
    return np.where(proper & np.isfinite(union), ratio, 0.0)


def giou(boxes_NW: ArrayLike, boxes_MW: ArrayLike, *, counts_overlap: bool = True) -> NDArray[np.float64]:
    """Generalised IoU of every pair, `(N, M)`, in -1..1: IoU less the share of both boxes' hull that neither fills.

    Source: Rezatofighi et al. 2019; the hull is axis-aligned, as in 3DETR's.

    Args:
        boxes_NW: proper boxes, rows of 6, 7 or 9 numbers.
        boxes_MW: proper boxes, rows of 6, 7 or 9 numbers.
        counts_overlap: False for Scan2Cap's benchmark, which clips z-up boxes in x and z, so that no two of them share anything.
    """
    a, b = _settle(boxes_NW), _settle(boxes_MW)
    overlap = iou(boxes_NW, boxes_MW) if counts_overlap else np.zeros((len(a.boxes), len(b.boxes)))
    volume = a.boxes[:, None, 3:].prod(axis=-1) + b.boxes[None, :, 3:].prod(axis=-1)
    (low_a, high_a), (low_b, high_b) = _hulls(a), _hulls(b)
    hull = (np.maximum(high_a[:, None], high_b[None]) - np.minimum(low_a[:, None], low_b[None])).prod(axis=-1)
    return np.asarray(overlap - 1 + volume / (1 + overlap) / hull)


class _Settled(NamedTuple):
    """Boxes with their axes; one that is only turned by quarters has its sizes swapped instead."""

    boxes: NDArray[np.float64]
    """`(N, 6)`."""
    axes: NDArray[np.float64]
    """`(N, 3, 3)`, an axis a column."""
    is_turned: NDArray[np.bool_]


def _settle(boxes_NW: ArrayLike) -> _Settled:
    rows = np.asarray(boxes_NW, dtype=np.float64)
    rows = rows.reshape(-1, rows.shape[-1] if rows.size else 6)
    if rows.shape[1] == 6:
        return _Settled(rows, np.broadcast_to(np.eye(3), (len(rows), 3, 3)), np.zeros(len(rows), dtype=bool))
    angles_N3 = np.zeros((len(rows), 3))
    angles_N3[:, : rows.shape[1] - 6] = rows[:, 6:]
    axes = rotation(np.where(np.isfinite(angles_N3), angles_N3, 0.0))
    whole = np.round(axes)
    is_turned = np.abs(axes - whole).max(axis=(1, 2)) > 1e-9
    size_N3 = np.where(is_turned[:, None], rows[:, 3:6], np.einsum("nij,nj->ni", np.abs(whole), rows[:, 3:6]))
    size_N3[~np.isfinite(angles_N3).all(axis=1)] = np.nan
    return _Settled(np.concatenate([rows[:, :3], size_N3], axis=1), axes, is_turned)


def _hulls(settled: _Settled) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The low and the high corner of the axis-aligned box around each, `(N, 3)`."""
    arms_N33 = np.where(settled.is_turned[:, None, None], settled.axes, np.eye(3))
    half_N3 = np.einsum("nij,nj->ni", np.abs(arms_N33), settled.boxes[:, 3:]) / 2
    return settled.boxes[:, :3] - half_N3, settled.boxes[:, :3] + half_N3


_SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
"""The corners of a box of size 2, `(8, 3)`."""
_FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
"""Indices into `_SIGNS`, each face's corners in order around it."""
EDGES = tuple((a, b) for a, b in combinations(range(8), 2) if (_SIGNS[a] != _SIGNS[b]).sum() == 1)
"""Pairs of a box's corners that differ in one coordinate."""
_Point = tuple[float, float, float]


def _shared_volume(a: _Settled, n: int, b: _Settled, m: int) -> float:
    """Cubic metres that box n of a and box m of b share: a is cut by b's six sides, in b's frame."""
    offset = a.boxes[n, :3] - b.boxes[m, :3]
    if np.linalg.norm(offset) >= (np.linalg.norm(a.boxes[n, 3:]) + np.linalg.norm(b.boxes[m, 3:])) / 2:
        return 0.0
    frame = b.axes[m] if b.is_turned[m] else np.eye(3)
    axes = a.axes[n] if a.is_turned[n] else np.eye(3)
    corners: list[_Point] = [tuple(c) for c in (((_SIGNS * a.boxes[n, 3:] / 2) @ axes.T + offset) @ frame).tolist()]
    faces = [[corners[i] for i in face] for face in _FACES]
    # A face that lies in a side of b must not be cut by rounding errors: its halves would be counted twice.
    tolerance = 1e-12 * float(np.abs(corners).max())
    for axis in range(3):
        for sign in (1.0, -1.0):
            faces = _cut(faces, axis, sign, float(b.boxes[m, 3 + axis]) / 2, tolerance)
    return _volume(faces)


def _cut(faces: list[list[_Point]], axis: int, sign: float, limit: float, tolerance: float) -> list[list[_Point]]:
    """The part of a convex body where `sign * coordinate <= limit`; the cut is closed by a face of its own."""
    kept, rim = [], []
    for face in faces:
        part: list[_Point] = []
        for start, end in zip(face, face[1:] + face[:1], strict=True):
            out, next_out = sign * start[axis] - limit, sign * end[axis] - limit
            if out <= tolerance:
                part.append(start)
            if (out <= tolerance) != (next_out <= tolerance):
                t = min(max(out / (out - next_out), 0.0), 1.0)
                x, y, z = (p + t * (q - p) for p, q in zip(start, end, strict=True))
                part.append((x, y, z))
                rim.append((x, y, z))
        if len(part) > 2:
            kept.append(part)
    if len(rim) > 2:
        u, v = (axis + 1) % 3, (axis + 2) % 3
        mu, mv = sum(p[u] for p in rim) / len(rim), sum(p[v] for p in rim) / len(rim)
        kept.append(sorted(rim, key=lambda p: atan2(p[v] - mv, p[u] - mu)))
    return kept


def _volume(faces: list[list[_Point]]) -> float:
    """Cubic metres of a convex body: a pyramid a face, over a point inside."""
    points = [point for face in faces for point in face]
    if not points:
        return 0.0
    inside = np.mean(points, axis=0)
    total = 0.0
    for face in faces:
        arms = np.array(face) - inside
        total += float(np.abs(np.cross(arms[1:-1] - arms[0], arms[2:] - arms[0]) @ arms[0]).sum())
    return total / 6


def _right_handed(axes_33: NDArray[np.float64]) -> NDArray[np.float64]:
    """The axes, one a row, the last one reversed where they are left-handed."""
    return np.asarray(axes_33 * np.array([[1.0], [1.0], [np.sign(np.linalg.det(axes_33)) or 1.0]]))


def _angles(matrix_33: NDArray[np.float64]) -> tuple[float, float, float]:
    """The angles of which `rotation` makes this matrix."""
    beta = float(np.arcsin(np.clip(matrix_33[2, 1], -1, 1)))
    if abs(matrix_33[2, 1]) > 1 - 1e-12:
        return float(np.arctan2(matrix_33[1, 0], matrix_33[0, 0])), beta, 0.0
    return (
        float(np.arctan2(-matrix_33[0, 1], matrix_33[1, 1])),
        beta,
        float(np.arctan2(-matrix_33[2, 0], matrix_33[2, 2])),
    )


def _are_proper(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the boxes along the last axis are finite and have positive sizes."""
    return np.asarray(np.isfinite(boxes).all(axis=-1) & (boxes[..., 3:] > 0).all(axis=-1))


def transform(xyz_P3: FloatArray, matrix_44: FloatArray) -> NDArray[np.float64]:
    """Apply a rigid 4x4 matrix (column vectors, as ScanNet writes it) to `(P, 3)` points."""
    return xyz_P3 @ matrix_44[:3, :3].T + matrix_44[:3, 3]
