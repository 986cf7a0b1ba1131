"""Boxes, turned or not: overlaps by hand, and against scipy's intersection of half-spaces."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection

from r1pipe.geometry import Box, OrientedBox, boxes_array, giou, iou, rotation

CUBE = Box(0, 0, 0, 2, 2, 2)


def turned(angle, *size, centre=(0.0, 0.0, 0.0)):
    return OrientedBox(*centre, *size, angle)


@pytest.mark.parametrize(
    ("one", "two", "value"),
    [
        pytest.param(turned(0.7, 1, 2, 3), turned(0.7, 1, 2, 3), 1.0, id="the same turned box"),
        # Two unit squares, one turned by 45 degrees, share a regular octagon of area 2 (sqrt 2 - 1).
        pytest.param(CUBE[:3] + (1, 1, 1), turned(math.pi / 4, 1, 1, 1), 0.8284271247461903 / 1.1715728752538097, id="octagon"),
        pytest.param(Box(0, 0, 0, 1, 2, 3), turned(math.pi / 2, 2, 1, 3), 1.0, id="a quarter turn swaps the sizes"),
        pytest.param(turned(0.3, 1, 1, 1), turned(0.3, 1, 1, 1, centre=(0, 0, 0.5)), 1 / 3, id="half above"),
        pytest.param(turned(0.3, 1, 1, 1), turned(1.1, 1, 1, 1, centre=(0, 0, 1)), 0.0, id="touching"),
        pytest.param(turned(0.3, 1, 1, 1), turned(1.1, 1, -1, 1), 0.0, id="a negative size overlaps with nothing"),
        pytest.param(turned(math.nan, 1, 1, 1), turned(1.1, 1, 1, 1), 0.0, id="an angle that is no number"),
    ],
)  # fmt: skip
def test_turned_boxes_overlap_by_hand(one, two, value):
    assert iou(one, two)[0, 0] == pytest.approx(value, abs=1e-12)
    assert iou(two, one)[0, 0] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "two", "value", "without_overlap"),
    [
        # Two cubes of side 1 half a metre apart: 1/3 shared, and no gap in their hull of 1.5.
        pytest.param(Box(0, 0, 0, 1, 1, 1), Box(0.5, 0, 0, 1, 1, 1), 1 / 3, 1 / 3, id="half shared"),
        pytest.param(Box(0, 0, 0, 1, 1, 1), Box(0, 0, 0, 1, 1, 1), 1.0, 1.0, id="the same"),
        pytest.param(Box(0, 0, 0, 1, 1, 1), Box(3, 0, 0, 1, 1, 1), -0.5, -0.5, id="two metres of gap in a hull of four"),
        pytest.param(Box(0, 0, 0, 2, 2, 2), Box(0, 0, 0, 1, 1, 1), 1 / 8, 1 / 8, id="one inside the other"),
        pytest.param(Box(0, 0, 0, 1, 1, 1), Box(1, 1, 0, 2, 2, 1), (0.25 / 4.75) - 1.5 / 6.25, -1.25 / 6.25, id="across"),
        pytest.param(turned(math.pi / 4, 1, 1, 1), Box(0, 0, 0, 2**0.5, 2**0.5, 1), 0.5, 0.5, id="a turned box's hull"),
    ],
)  # fmt: skip
def test_generalised_iou_by_hand(one, two, value, without_overlap):
    assert giou(one, two)[0, 0] == pytest.approx(value, abs=1e-12)
    assert giou(two, one, counts_overlap=False)[0, 0] == pytest.approx(without_overlap, abs=1e-12)


def half_spaces(box):
    """Rows `(a, b)` with a x + b <= 0 inside."""
    axes, middle = rotation(np.array([box[6:]]))[0], np.array(box[:3])
    normals = np.concatenate([axes.T, -axes.T])
    return np.c_[normals, -normals @ middle - np.tile(np.array(box[3:6]) / 2, 2)]


def test_nine_degrees_of_freedom_equal_an_intersection_of_half_spaces():
    rng = np.random.default_rng(0)
    for _ in range(40):
        one, two = (OrientedBox(*rng.normal(0, 0.2, 3), *rng.uniform(0.5, 2, 3), *rng.uniform(-3, 3, 3)) for _ in "ab")
        planes = np.concatenate([half_spaces(one), half_spaces(two)])
        inside = linprog([0, 0, 0, -1], np.c_[planes[:, :3], np.ones(12)], -planes[:, 3], bounds=[(None, None)] * 4).x
        shared = ConvexHull(HalfspaceIntersection(planes, inside[:3]).intersections).volume
        whole = np.prod(one[3:6]) + np.prod(two[3:6]) - shared
        assert iou(one, two)[0, 0] == pytest.approx(shared / whole, abs=1e-9)


def test_boxes_along_the_axes_overlap_alike_however_they_are_written():
    rng = np.random.default_rng(1)
    boxes = np.c_[rng.normal(0, 1, (30, 3)), rng.uniform(0.2, 2, (30, 3))]
    plain = iou(boxes, boxes)
    assert (iou(np.c_[boxes, np.zeros(30)], np.c_[boxes, np.zeros((30, 3))]) == plain).all()
    assert (iou(boxes_array([Box(*boxes[0]), OrientedBox(*boxes[1], 0.0)]), boxes) == plain[:2]).all()


def test_a_box_is_known_by_its_corners_in_any_order():
    rng = np.random.default_rng(2)
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    for _ in range(20):
        box = OrientedBox(*rng.normal(0, 2, 3), *rng.uniform(0.1, 2, 3), *rng.uniform(-3, 3, 3))
        corners = (signs * np.array(box[3:6]) / 2) @ rotation(np.array([box[6:]]))[0].T + np.array(box[:3])
        found = OrientedBox.around_corners(rng.permutation(corners))
        assert found is not None
        assert iou(found, box)[0, 0] == pytest.approx(1, abs=1e-9)
    assert OrientedBox.around_corners(rng.normal(size=(8, 3))) is None
