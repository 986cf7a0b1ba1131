"""The filters: what each rejects, and how well it finds what was done wrong on purpose."""

import pytest
from tiny_gate import PARAMS, asked, draft

from r1pipe.response import compose
from r1pipe.validation.filters import reject_reason, similarity, steps


@pytest.mark.parametrize(
    ("cot", "second", "reason"),
    [
        ("<think>chair <obj_001> red</think><answer>red</answer>", "red", None),
        ("<think>chair <obj_001> red</think><answer>Red</answer>", None, None),
        ("<think>chair <obj_001> red<answer>red</answer>", None, "format"),
        ("<answer>red</answer>", None, "format"),
        ("<think>red</think><answer>red</answer>", "red", "length"),
        (compose("chair <obj_001> red " * 30, "red"), "red", "length"),
        (compose("chair <obj_001> red", "red " * 61), "red", "answer_length"),
        ("<think>. . . .</think><answer>red</answer>", "red", "steps"),
        ("<think>table <obj_002> so red</think><answer>red</answer>", "red", "target"),
        ("<think>chair <obj_001> . table <obj_002> so red</think><answer>red</answer>", "red", "target"),
        ("<think>chair <obj_001> blue</think><answer>red</answer>", "blue", "consistency"),
        ("<think>chair <obj_001> blue</think><answer>blue</answer>", "blue", "consistency"),
    ],
)
def test_filters_reject_in_order_and_by_name(cot, second, reason):
    sample = asked("what color is the chair?", "red", 1)
    given = draft(sample).model_copy(update={"cot": cot, "second_answer": second})
    assert reject_reason(given, sample, PARAMS.think, PARAMS.validate_.filters) == reason


@pytest.mark.parametrize(
    ("thinking", "passes"),
    [("beds none no", True), ("table <obj_002> so no", False)],
)
def test_without_a_target_the_last_step_names_what_was_asked_for(thinking, passes):
    sample = asked("are there any beds?", "no")
    given = draft(sample).model_copy(update={"cot": compose(thinking, "no"), "second_answer": "no"})
    assert (reject_reason(given, sample, PARAMS.think, PARAMS.validate_.filters) is None) == passes


@pytest.mark.parametrize(
    ("thinking", "count"),
    [
        ("chair <obj_001> red", 1),
        ("1. Find the bed. 2. It is red. 3. So red.", 3),
        ("Step 1: find the bed\nStep 2: see it", 2),
        ("it is 1.5 m wide; that fits", 2),
        (". . .", 0),
    ],
)
def test_steps_are_what_stands_between_stops(thinking, count):
    assert len(steps(thinking)) == count


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("red", " RED", 1.0),
        ("", "", 1.0),
        ("", "red", 0.0),
        ("kitten", "sitting", 4 / 7),
        ("on the bed", "on the red", 0.9),
    ],
)
def test_similarity_is_one_minus_normalised_levenshtein(one, two, expected):
    assert similarity(one, two) == pytest.approx(expected) == similarity(two, one)
