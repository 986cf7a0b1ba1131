"""What the report draws: courses, intervals, rooms with boxes, costs."""

from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_room import room

from r1pipe.evaluation.charts import Bar, interval_chart, line_chart, ticks
from r1pipe.evaluation.rooms import PREDICTED, SIZE, TARGET, draw_room
from r1pipe.evaluation.series import Series
from r1pipe.geometry import Box
from r1pipe.stages import costs


def test_smoothing_keeps_a_constant_and_the_length():
    series = Series(tuple(range(100)), (0.5,) * 100)
    assert series.smooth() == series


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        pytest.param(0, 100, [0, 20, 40, 60, 80, 100], id="percent"),
        pytest.param(0.31, 0.58, [0.3, 0.4, 0.5, 0.6], id="fractions"),
        pytest.param(2, 2, [2.0, 2.5, 3.0, 3.5, 4.0], id="a constant"),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, marks):
    assert ticks(low, high) == marks


def test_charts_draw_every_course_and_every_bar():
    svg = line_chart({"a": Series((0, 1, 2), (1.0, float("nan"), 3.0)), "b": Series((0, 2), (2.0, 2.0))}, "x < y")
    assert svg.count("<polyline") == 2
    assert "x &lt; y" in svg
    assert "nan" not in svg
    assert interval_chart([Bar("sft", 50, 40, 60, "red"), Bar("grpo", 0, 0, 0, "blue")], "em").count("<circle") == 2


def drawn(picture, pencil):
    """The pixels of a pencil's colour, as rows of (row, column)."""
    return np.argwhere((picture == [int(pencil.colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1))


def test_a_room_is_drawn_with_the_target_and_the_predicted_box():
    scene = room()
    chair, elsewhere = scene.object(2).box, scene.object(3).box
    picture = draw_room(scene, [chair], [elsewhere])
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    assert min(len(drawn(picture, TARGET)), len(drawn(picture, PREDICTED))) > 50
    apart = drawn(picture, TARGET).mean(axis=0) - drawn(picture, PREDICTED).mean(axis=0)
    assert np.linalg.norm(apart) > 80, "four metres apart in a room of six"
    both = draw_room(scene, [chair], [chair])
    assert len(drawn(both, PREDICTED)) > 50 and len(drawn(both, TARGET)) > 50, "a box that fits hides no target"
    assert (draw_room(scene, [chair], [elsewhere]) == picture).all()


def test_a_room_without_boxes_and_a_box_behind_the_camera_are_drawn():
    scene = room()
    blank = draw_room(scene, [], [])
    assert len(drawn(blank, TARGET)) == len(drawn(blank, PREDICTED)) == 0 and (blank != 255).any()
    assert draw_room(scene, [], [Box(900, 900, 900, 1, 1, 1)]).shape == blank.shape


def test_costs_are_drawn_in_the_order_of_the_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for stage, seconds in (("sft", 60.0), ("grpo", 120.0), ("sft", 90.0)):
        costs.record(stage, seconds, tmp_path / "reports")
    assert {stage: cost["seconds"] for stage, cost in costs.read_costs().items()} == {"grpo": 120.0, "sft": 90.0}
    texts = list(ElementTree.parse(tmp_path / "reports" / "costs.svg").getroot().itertext())
    assert texts.index("grpo") < texts.index("sft")
    assert texts[texts.index("sft") + 1] == "1.5"
