"""Which answers the report shows: the best, the worst, and some by lot."""

from pathlib import Path

import pytest

from r1pipe.datasets.sample import Sample
from r1pipe.evaluation.examples import Material, Pool
from r1pipe.geometry import Box
from r1pipe.params import Params

ROOT = Path(__file__).parents[1]
NEAR, FAR = [0.1, 0.0, 0.5, 1.0, 1.0, 1.0], [5.0, 5.0, 0.5, 1.0, 1.0, 1.0]


@pytest.fixture
def pool():
    """Per task four questions that the tuned model answers well, less well, badly and worst."""
    names = ["well", "middling", "badly", "worst"]
    boxes = {"well": [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]], "middling": [NEAR], "badly": [FAR], "worst": []}
    said = {"well": "red", "middling": "red", "badly": "blue", "worst": "blue"}
    reward = {"well": 0.9, "middling": 0.5, "badly": 0.3, "worst": None}
    given = {"qa": [{"id": f"q-{n}", "answer": said[n], "completion": ""} for n in names]}
    given["grounding"] = [{"id": f"g-{n}", "boxes": boxes[n], "completion": ""} for n in names]
    captions = ["a red chair near the wall", "a blue table", "no"]
    given["captioning"] = [
        {"scene_id": "s", "box": [10.0 * i, 0, 0, 1, 1, 1], "caption": caption} for i, caption in enumerate(captions)
    ]
    wanted = {
        "qa": [{"id": f"q-{n}", "answers": ["red"]} for n in names],
        "grounding": [{"id": f"g-{n}", "boxes": [[0.0, 0.0, 0.5, 1.0, 1.0, 1.0]]} for n in names],
        "captioning": [
            {"scene_id": "s", "object_id": i, "box": [10.0 * i, 0, 0, 1, 1, 1], "captions": [text]}
            for i, text in enumerate([captions[0], "a blue table by the lamp", "a green bed", "a white door"])
        ],
    }
    samples = [
        Sample(id=f"{task[0]}-{n}", scene_id="s", task=task, question=n, source="scanqa", split="test")
        for task in ("qa", "grounding")
        for n in names
    ]
    rewards = [{"id": f"q-{n}", "format": 1.0, "perception": None, "total": reward[n]} for n in names]
    material = {task: Material(wanted[task], {"grpo": given[task]}) for task in wanted}
    return Pool(material, {"grpo": rewards}, samples, Params.load(ROOT / "params.yaml").think)


def test_the_best_and_the_worst_answers_are_found(pool):
    best, worst = pool.ranked(2)
    assert [e.question for e in best if e.task != "captioning"] == ["well", "well", "middling", "middling"]
    assert [e.question for e in worst if e.task == "qa"] == ["worst", "badly"]
    assert {e.question for e in worst if e.task == "grounding"} == {"badly", "worst"}, "neither overlaps"
    assert [e.said[0].answer for e in best if e.task == "captioning"] == ["a red chair near the wall", "a blue table"]
    silent = next(e for e in worst if e.task == "captioning")
    assert silent.reference == "a white door" and silent.said[0].answer == "(nothing about this object)"


def test_examples_by_lot_take_the_tasks_in_turn_and_carry_what_applies(pool):
    shown = pool.by_lot(5)
    assert [example.task for example in shown] == ["qa", "grounding", "captioning", "qa", "grounding"]
    assert all(set(e.said[0].rewards) <= {"format", "total"} for e in shown)
    (well,) = (e for e in pool.ranked(1).best if e.task == "grounding")
    assert well.pointed == well.targets == [Box(0.0, 0.0, 0.5, 1.0, 1.0, 1.0)]
