"""Do predicted boxes live where the annotated ones do? Other units, another frame, another notation, found and said.

A file in millimetres, before ScanNet's alignment, with y up, or with corners in place of centre and size gives scores of
zero that look like a bad model. Each mistake is tried as a reading: what the predictions would be worth if it had been made.

Shape suffixes: N pairs of a predicted and an annotated box.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError
from r1pipe.geometry import Box, OrientedBox, boxes_array, iou

Floats = NDArray[np.float64]
AnyBox = Box | OrientedBox

MIN_PAIRS = 5
"""Fewer targets prove no other frame: a motion fits three points. Another unit shows in one."""
MAX_PAIRS = 1000
"""As many are enough to tell."""
HIT = 0.25
"""IoU at which a reading makes sense of a target."""
FEW, MANY = 0.05, 0.5
"""Below the first share of hits a file is doubted; a reading must reach the second."""
CORRELATED = 0.8
"""Share of the centres' variance that a frame must explain."""
MAX_SIZE = 100.0
"""Metres; no piece of a room is larger, so the file is not in metres."""
_TRIMMINGS = 8
"""Rounds of fitting a frame to what fits it best."""
_ROOM = re.compile(r"(?:scene|room|proc)\d+_\d+")


class Pair(NamedTuple):
    """A predicted box beside an annotated one that it may be meant for."""

    scene: str
    """Where it is; pairs of one scene share a frame."""
    target_id: str
    """Of the annotated box; of several pairs of one target the best counts."""
    predicted: AnyBox
    target: AnyBox


def scene_of(name: str) -> str:
    """The scene that an id names, the empty string for none."""
    found = _ROOM.search(name)
    return found[0] if found else ""


def refuse_improper(boxes: Sequence[tuple[str, AnyBox]], what: str) -> None:
    """Refuse boxes whose sizes are not positive or whose numbers are not finite.

    Raises:
        DataError: with their number, and where the first of them are.
    """
    bad = [(where, box) for where, box in boxes if not is_proper(box)]
    if bad:
        shown = "; ".join(f"{where}: {', '.join(f'{value:g}' for value in box)}" for where, box in bad[:3])
        raise DataError(
            f"Expected finite boxes of positive size in the {what}, found {len(bad)} others of {len(boxes)} ({shown})"
            f"{', which read as lowest and highest corner.' if _are_corners(boxes) else '.'}"
        )


def refuse_oversized(boxes: Sequence[tuple[str, AnyBox]], what: str) -> None:
    """Refuse boxes that are larger than any room: some rows of a file may be in another unit.

    Raises:
        DataError: with their number, and where the first of them are.
    """
    large = [where for where, box in boxes if max(box[3:6]) > MAX_SIZE]
    if large:
        raise DataError(
            f"Expected boxes in metres in the {what}, found {len(large)} of {len(boxes)} larger than {MAX_SIZE:g}, as if in "
            f"millimetres ({'; '.join(large[:3])})."
        )


def _are_corners(boxes: Sequence[tuple[str, AnyBox]]) -> bool:
    """Whether the last three numbers of every box lie above the first three."""
    return all(len(box) == 6 and all(box[axis + 3] > box[axis] for axis in range(3)) for _, box in boxes)


def is_proper(box: AnyBox) -> bool:
    """Whether every number is finite and every size is positive."""
    return bool(np.isfinite(box).all()) and min(box[3:6]) > 0


def refuse_misread(pairs: Sequence[Pair]) -> list[str]:
    """Refuse predictions that another unit, notation or frame explains, where as they stand (almost) none hits.

    Returns:
        A warning where none hits and nothing explains it.

    Raises:
        DataError: with the reading, the share of targets that it makes sense of, and how the centres correlate.
    """
    if not pairs:
        return []
    targets = np.unique([pair.target_id for pair in pairs], return_inverse=True)[1]
    num_targets = int(targets.max()) + 1
    ours_N, theirs_N = boxes_array([p.predicted for p in pairs]), boxes_array([p.target for p in pairs])
    now = _share(ours_N, theirs_N, targets)
    if now > FEW:
        return []
    scenes = np.unique([pair.scene for pair in pairs], return_inverse=True)[1]
    readings = [*_notations(ours_N)]
    if num_targets >= MIN_PAIRS:
        readings += _exchanges(ours_N, theirs_N)
        readings += _frames(ours_N, theirs_N, scenes) if num_targets == len(pairs) else []
    shares = {name: _share(read, theirs_N, targets) for name, read in readings}
    explained = {name: _explained(read, theirs_N, scenes) for name, read in readings if name.startswith(_FRAME)}
    for name, _ in readings:
        if shares[name] >= MANY or explained.get(name, 0.0) >= CORRELATED:
            raise DataError(
                f"Expected predicted boxes in metres, in the aligned scene frame, found {100 * now:.0f} % of {num_targets} "
                f"targets hit at IoU {HIT}, and {100 * shares[name]:.0f} % once the file is read as {name}; as they stand, the "
                f"centres correlate by {_correlation(ours_N, theirs_N)}."
            )
    unit = _unit(ours_N, theirs_N)
    if unit:
        raise DataError(unit)
    return (
        []
        if now > 0
        else [f"none of {num_targets} targets is hit at IoU {HIT}: are the boxes in the aligned scene frame?"]
    )


def _share(ours_N: Floats, theirs_N: Floats, targets_N: NDArray[np.intp]) -> float:
    """Share of the targets that a box of theirs hits."""
    best = np.zeros(targets_N.max() + 1)
    np.maximum.at(best, targets_N, [iou(a, b)[0, 0] for a, b in zip(ours_N, theirs_N, strict=True)])
    return float((best >= HIT).mean())


def _explained(read_N: Floats, theirs_N: Floats, scenes_N: NDArray[np.intp]) -> float:
    """Share of the variance of the targets' centres within their scenes that the read centres explain, where there are some."""
    kept = np.isfinite(read_N).all(axis=1)
    if kept.sum() < 2 * MIN_PAIRS:
        return 0.0
    a, b, group = read_N[kept, :3], theirs_N[kept, :3], scenes_N[kept]
    counts = np.bincount(group).clip(1)
    means = np.stack([np.bincount(group, b[:, axis]) / counts for axis in range(3)], axis=1)
    spread = ((b - means[group]) ** 2).sum()
    return float(1 - ((a - b) ** 2).sum() / spread) if spread > 0 else 0.0


def _unit(ours_N: Floats, theirs_N: Floats) -> str:
    for boxes_N, whose in ((ours_N, "predicted"), (theirs_N, "annotated")):
        size = float(np.median(boxes_N[:, 3:6].max(axis=1)))
        if size > MAX_SIZE:
            return f"Expected {whose} boxes in metres, found a median size of {size:,.0f}: millimetres or centimetres."
    return ""


def _correlation(ours_N: Floats, theirs_N: Floats) -> str:
    """Pearson's r of the centres, an axis each."""
    parts = []
    for axis, name in enumerate("xyz"):
        a, b = ours_N[:, axis], theirs_N[:, axis]
        parts.append(f"{name} {np.corrcoef(a, b)[0, 1]:.2f}" if a.std() > 0 and b.std() > 0 else f"{name} -")
    return ", ".join(parts)


def _notations(ours_N: Floats) -> Iterator[tuple[str, Floats]]:
    """Other units, and other meanings of the six numbers."""
    units: tuple[tuple[str, float], ...] = (
        ("millimetres", 1e-3),
        ("centimetres", 1e-2),
        ("inches", 0.0254),
        ("feet", 0.3048),
    )
    for name, metres in units:
        yield name, _scaled(ours_N, metres)
    yield "references in millimetres", _scaled(ours_N, 1e3)
    yield "references in centimetres", _scaled(ours_N, 1e2)
    low, high = ours_N[:, :3], ours_N[:, 3:6]
    yield "lowest and highest corner", np.concatenate([(low + high) / 2, high - low], axis=1)
    yield "lowest corner and size", np.concatenate([low + high / 2, high], axis=1)


def _exchanges(ours_N: Floats, theirs_N: Floats) -> Iterator[tuple[str, Floats]]:
    """Axes exchanged, then moved as well."""
    for name, turn in _TURNS:
        yield name, _moved(ours_N, turn, np.zeros(3))
    for name, turn in _TURNS:
        turned = _moved(ours_N, turn, np.zeros(3))
        shift = np.median(theirs_N[:, :3] - turned[:, :3], axis=0)
        yield f"{name}, moved by {', '.join(f'{x:.2f}' for x in shift)}", _moved(ours_N, turn, shift)


_FRAME = "boxes of another frame"


def _frames(ours_N: Floats, theirs_N: Floats, scenes: NDArray[np.intp]) -> Iterator[tuple[str, Floats]]:
    """The predictions moved to where their targets are, all together and scene by scene."""
    yield f"{_FRAME}, the same for all scenes", _fitted(ours_N, theirs_N, np.zeros(len(ours_N), dtype=np.intp))
    yield f"{_FRAME}, one a scene, such as the scan's own before ScanNet's alignment", _fitted(ours_N, theirs_N, scenes)


def _scaled(boxes_N: Floats, factor: float) -> Floats:
    return np.concatenate([boxes_N[:, :6] * factor, boxes_N[:, 6:]], axis=1)


def _turns() -> Iterator[tuple[str, Floats]]:
    """Exchanges of axes, as signed permutations."""
    eye = np.eye(3)
    yield "the same axes", eye
    yield "y up (z and -y exchanged)", np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=np.float64)
    yield "y down, as a camera's frame", np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float64)
    yield "y and z exchanged", eye[[0, 2, 1]]
    yield "x and y exchanged", eye[[1, 0, 2]]
    yield "x mirrored", np.diag([-1.0, 1, 1])
    yield "y mirrored", np.diag([1.0, -1, 1])
    yield "z mirrored", np.diag([1.0, 1, -1])
    yield "half a turn about z", np.diag([-1.0, -1, 1])
    yield "a quarter turn about z", np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float64)
    yield "a quarter turn back about z", np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], dtype=np.float64)


_TURNS = tuple(_turns())


def _moved(boxes_N: Floats, turn_33: Floats, shift_3: Floats) -> Floats:
    """The boxes after an exchange of axes and a shift."""
    centre, size = boxes_N[:, :3] @ turn_33.T + shift_3, boxes_N[:, 3:6] @ np.abs(turn_33).T
    return np.concatenate([centre, size], axis=1)


def _fitted(ours_N: Floats, theirs_N: Floats, groups_N: NDArray[np.intp]) -> Floats:
    """The boxes after the turn about z and the shift that bring their centres nearest to the targets', group by group.

    Boxes keep their sizes, which is what a tight box of a turned object roughly does. A group of fewer than `MIN_PAIRS`
    is left out: anything fits.
    """
    moved = np.full((len(ours_N), 6), np.nan)
    for group in np.unique(groups_N):
        mine = groups_N == group
        if mine.sum() >= MIN_PAIRS:
            centre_N3 = _brought(ours_N[mine, :3], theirs_N[mine, :3])
            moved[mine] = np.concatenate([centre_N3, ours_N[mine, 3:6]], axis=1)
    return moved


def _brought(ours_N3: Floats, theirs_N3: Floats) -> Floats:
    """Points turned about z and shifted to theirs by least squares over the half that then fits best.

    A model points at wrong objects as well: they would pull a fit over all away from the frame.
    """
    kept = np.arange(len(ours_N3))
    for _ in range(_TRIMMINGS):
        mean_a, mean_b = ours_N3[kept].mean(axis=0), theirs_N3[kept].mean(axis=0)
        x_N2, y_N2 = (ours_N3[kept] - mean_a)[:, :2], (theirs_N3[kept] - mean_b)[:, :2]
        angle = np.arctan2((x_N2[:, 0] * y_N2[:, 1] - x_N2[:, 1] * y_N2[:, 0]).sum(), (x_N2 * y_N2).sum())
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        moved_N3: Floats = (ours_N3 - mean_a) @ turn.T + mean_b
        gap_N = np.linalg.norm(moved_N3 - theirs_N3, axis=1)
        kept = np.argsort(gap_N, kind="stable")[: max(len(gap_N) // 2, MIN_PAIRS)]
    return moved_N3
