"""Whether chosen views follow the question is counted on a room that one can check by hand."""

import numpy as np
import pytest

from r1pipe.datasets.sample import Sample
from r1pipe.errors import DataError
from r1pipe.evaluation.looking import Sight, choices_for, follow, look_row
from r1pipe.geometry import Box
from r1pipe.views.choice import ViewChoice

BOX = Box(0, 0, 0, 1, 1, 1)
SIGHT = Sight(np.array([[[0, -1], [-1, -1]], [[1, 1], [-1, 0]], [[-1, -1], [-1, -1]]], np.int32), np.array([7, 8]))
"""Three views of two pixels squared: the chair (7) is in the first two, the lamp (8) in the second."""


def grounding(question, *targets, scene="room"):
    return Sample(
        id=f"{scene}-{question}", scene_id=scene, task="grounding", question=question, object_ids=targets,
        boxes=(BOX,) * len(targets), source="scanrefer", split="test",
    )  # fmt: skip


def look(question, *chosen, scene="room", task="grounding"):
    return look_row(
        task, scene, question, [ViewChoice(view, view in chosen, 0.0, 0.0, 0.0, 1 / 3) for view in range(3)]
    )


SAMPLES = [grounding("the chair", 7), grounding("the lamp", 8), grounding("a chair", 7), grounding("both", 7, 8)]
LOOKS = [look("the chair", 1), look("the lamp", 1), look("a chair", 2), look("both", 0)]


def found(looks=LOOKS, samples=SAMPLES):
    return follow(looks, samples, lambda name: SIGHT, resamples=200, seed=0)


def test_pairs_have_other_targets_and_differ_in_what_was_chosen():
    assert found()["pairs"] == {"n": 2, "differ": 1}


def test_a_target_counts_where_a_chosen_view_shows_it_and_chance_is_exact():
    targets = found()["targets"]
    assert (targets["n"], targets["in_any_view"], targets["in_chosen_views"]) == (3, 3, 2)
    assert targets["in_random_views"] == pytest.approx(2 / 3 + 1 / 3 + 2 / 3, abs=0.01)
    assert targets["in_others_views"] == pytest.approx(1 + 1 / 2 + 1, abs=0.01)
    assert targets["gain"] == pytest.approx(100 * (2 - 5 / 3) / 3, abs=1e-3)
    assert targets["low"] <= targets["gain"] <= targets["high"]
    assert targets["pixels_chosen"] == pytest.approx(100 * (0.25 + 0.5 + 0) / 3, abs=1e-3)


def test_two_random_views_of_three_miss_a_target_in_one_of_them_once_in_three():
    two = [look("the lamp", 0, 2)]
    assert found(two)["targets"]["in_random_views"] == pytest.approx(2 / 3, abs=0.01)
    assert found(two)["targets"]["in_others_views"] == pytest.approx(2 / 3, abs=0.01), "there is no other target"
    assert found(two)["targets"]["in_chosen_views"] == 0


def test_rooms_are_not_paired_with_each_other_and_a_question_counts_once():
    samples = [*SAMPLES, SAMPLES[0], grounding("the lamp", 8, scene="other")]
    assert found([*LOOKS, look("the lamp", 0, scene="other")], samples)["pairs"]["n"] == 2


def test_without_grounding_there_is_nothing_to_follow():
    assert found([look("what is it?", 1, task="qa")]) == {}


def test_views_are_found_by_question_and_a_caption_finds_those_of_its_room():
    looks = [look("what is it?", 1, task="qa"), look("describe <obj_004>.", 2, task="captioning")]
    assert [choice.chosen for choice in choices_for(looks, "qa", "room", "what is it?")] == [False, True, False]
    assert choices_for(looks, "captioning", "room", "describe the object in the box at …")[2].chosen
    assert choices_for(looks, "captioning", "elsewhere", "describe the object in the box at …") == []
    with pytest.raises(DataError, match="'why' about scene room, found none in 2 rows"):
        choices_for(looks, "qa", "room", "why")
