"""The filters: what each rejects, and how well it finds what was done wrong on purpose."""

import json

import pytest
from tiny_gate import PARAMS, World, asked, draft, room

from r1pipe.datasets import Sample
from r1pipe.params.chains import Probe
from r1pipe.response import compose
from r1pipe.synthesis.faults import FAULTS, OTHERWISE_CAUGHT
from r1pipe.synthesis.probe import probe
from r1pipe.validation import filters
from r1pipe.validation.figures import Share, fault_figures
from r1pipe.validation.filters import FILTERS, reject_reason, similarity, steps


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


def test_precision_and_recall_count_a_fault_by_the_filter_that_is_to_catch_it():
    pairs = [("steps", "steps"), ("steps", None), ("steps", "length"), (None, "steps"), ("dots", "steps"), (None, None)]
    dots, kind, unseen = fault_figures(pairs, ["dots", "steps", "format"], {"dots": "steps"})
    assert (dots.fault, dots.filter, kind.filter) == ("dots", "steps", "steps")
    assert (dots.recall.hits, dots.recall.n) == (1, 1)
    assert (kind.recall.value, kind.precision.value) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert unseen.recall == Share(0, 0, None, None, None)


def test_the_interval_of_a_share_is_wilsons():
    assert Share.of(9, 10) == (9, 10, 0.9, pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))


SCENE = room("scene0000_00")


def figures(count=700):
    """Measured as the stage does, on questions of each kind about one room."""
    chair, table = SCENE.objects[:2]
    kinds = [
        {"task": "qa", "question": "what color is the chair?", "answers": ("red",), "object_ids": (chair.id,)},
        {"task": "qa", "question": "how many beds are there?", "answers": ("1",)},
        {"task": "qa", "question": "are there any sofas?", "answers": ("no",)},
        {"task": "qa", "question": "what is nearest to the table?", "answers": ("lamp",), "object_ids": (2,)},
        {"task": "grounding", "question": "the table.", "object_ids": (table.id,)},
        {
            "task": "captioning",
            "question": "describe <obj_001>.",
            "answers": ("a red table.",),
            "object_ids": (table.id,),
        },
    ]
    samples = [
        Sample(id=f"a-{i}", scene_id=SCENE.id, source="scanqa", split="train", **kinds[i % len(kinds)])
        for i in range(count)
    ]
    by_id = {sample.id: sample for sample in samples}
    texts = probe(samples, lambda _: SCENE, PARAMS.think, fault_rate=0.1, seed=0)
    section = PARAMS.validate_.filters
    pairs = [(text.fault, reject_reason(text, by_id[text.id], PARAMS.think, section)) for text in texts]
    return {figure.fault: figure for figure in fault_figures(pairs, FAULTS, OTHERWISE_CAUGHT)}


def test_every_filter_finds_95_percent_of_its_faults_and_95_percent_of_what_it_finds_is_one():
    found = figures()
    assert set(found) == set(FAULTS)
    assert {figure.filter for figure in found.values()} == {"format", *FILTERS}
    for figure in found.values():
        assert figure.recall.n >= 25, figure
        assert figure.recall.value >= 0.95 <= figure.precision.value, figure


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_that_lets_all_pass_shows_no_recall(monkeypatch, name):
    monkeypatch.setattr(filters, "FILTERS", {**FILTERS, name: lambda *_: True})
    found = figures()
    for fault, figure in found.items():
        broken = figure.filter == name
        assert (figure.recall.value == 0) if broken else (figure.recall.value >= 0.95), fault


def test_a_filter_that_rejects_what_is_right_shows_low_precision(monkeypatch):
    monkeypatch.setattr(filters, "FILTERS", {**FILTERS, "target": lambda *_: False})
    assert figures()["target"].precision.value < 0.3


def test_the_stage_measures_the_filters_and_warns_of_a_broken_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world = World(tmp_path)
    world.set(probe=Probe(samples=50, fault_rate=1 / len(FAULTS)))
    monkeypatch.setattr(filters, "FILTERS", {})
    world.validate()
    metrics = json.loads((world.params.paths.metrics / "validate.json").read_text())
    assert list(metrics["faults"]) == list(FAULTS)
    assert "filter_recall" in metrics["warnings"]
    asked_and_faulty = sum(figure["recall"]["n"] for figure in metrics["faults"].values())
    assert 0 < asked_and_faulty <= 4
