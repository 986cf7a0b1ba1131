"""Chains of thought: what the scripted teacher says, which mistakes it makes, and what replay repeats."""

import asyncio
import json
from collections import Counter

import pytest
from tiny_room import OBJECTS, ask, room

from r1pipe.datasets import Pose
from r1pipe.datasets.draft import Draft, Rejection
from r1pipe.errors import DataError
from r1pipe.params.run import Think
from r1pipe.response import compose, parse
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.patterns import conclude
from r1pipe.synthesis.replay import ReplayTeacher
from r1pipe.synthesis.scripted import ScriptedTeacher
from r1pipe.synthesis.teacher import Refusal, Thought

THINK = Think(
    qa=True, situated=True, grounding=False, captioning=False, dialogue=False, planning=False, description=False
)
FACING_NORTH = Pose(position=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0, 1.0))


@pytest.fixture(scope="module")
def scene():
    return room()


def think(sample, scene, **rates):
    return asyncio.run(ScriptedTeacher(seed=0, fault_rates=rates).think(sample, scene))


def named(text):
    """`<3>` for `<obj_003>`, so that the tables below stay readable."""
    for i in range(len(OBJECTS)):
        text = text.replace(f"<obj_{i:03d}>", f"<{i}>")
    return text


@pytest.mark.parametrize(
    ("question", "answer", "thinking"),
    [
        ("what color is the table?", "brown", "table <3> brown"),
        ("What color is the trash can?", "Black", "trash can <5> Black"),
        ("what color is the chair nearest to the table?", "red", "table <3> nearest chair <1> red"),
        ("what color is the lamp on the table?", "white", "table <3> on lamp <4> white"),
        ("what is the color of the largest chair?", "blue", "largest chair <2> blue"),
        ("how many chairs are in the room?", "2", "chair <1> <2> 2"),
        ("how many chairs are there?", "two", "chair <1> <2> two"),
        ("how many bookshelves are in the room?", "1", "bookshelf <6> 1"),
        ("how many beds are in the room?", "0", "beds none 0"),
        ("how many things are on the table?", "1", "table <3> on <4> 1"),
        ("is there a red chair in the room?", "yes", "red chair <1> yes"),
        ("is there a green chair in the room?", "no", "green chair none no"),
        ("are there any beds?", "no", "beds none no"),
        ("what is on the table?", "lamp", "table <3> on <4> lamp"),
        ("what is the white thing on the table?", "lamp", "table <3> on white <4> lamp"),
        ("what is nearest to the table?", "lamp", "table <3> nearest <4> lamp"),
        ("where is the lamp?", "on the table", "lamp <4> near <3> on the table"),
        ("is the table red?", "no", "table <3> brown so no"),
        (
            "which is bigger, the red chair or the blue chair?",
            "blue chair",
            "red chair <1> blue chair <2> bigger <2> blue chair",
        ),
        ("why is the table here?", "to eat", "table <3> brown so to eat"),
        ("is it cosy?", "yes", "bookshelf <6> table <3> chair <2> so yes"),
    ],
)
def test_reasoning_is_one_look_up_after_another(scene, question, answer, thinking):
    thought = think(ask(question, answer), scene)
    assert named(thought.text) == compose(thinking, answer)
    assert thought.second_answer == answer


@pytest.mark.parametrize(
    ("question", "answer", "thinking"),
    [
        ("what is on my left?", "chair", "left <2> chair"),
        ("what is in front of me?", "trash can", "front <5> trash can"),
        ("what color is the chair on my right?", "red", "right chair <1> red"),
        ("which direction is the table from me?", "right", "table <3> right"),
        ("how many chairs are on my left?", "1", "left chair <2> 1"),
    ],
)
def test_situated_reasoning_starts_at_the_agent(scene, question, answer, thinking):
    sample = ask(f"i am facing the trash can. {question}", answer, task="situated", pose=FACING_NORTH)
    assert named(think(sample, scene).text) == compose(thinking, answer)


@pytest.mark.parametrize(
    ("text", "targets", "thinking"),
    [
        ("the largest chair.", (2,), "largest chair <2>"),
        ("the chairs.", (1, 2), "chair <1> <2>"),
        ("the green chair.", (), "green chair none"),
        ("the chair farthest from the table.", (2,), "table <3> farthest chair <2>"),
        ("something to sit on", (1,), "bookshelf <6> table <3> chair <2> so <1>"),
    ],
)
def test_grounding_reasoning_ends_with_the_targets(scene, text, targets, thinking):
    sample = ask(text, "", task="grounding", object_ids=targets)
    assert named(parse(think(sample, scene).text, think=True).thinking) == thinking


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("what color is the table?", "green"),
        ("how many chairs are there?", "3"),
        ("is there a table?", "no"),
        ("where is the lamp?", "next to the bookshelf"),
    ],
)
def test_an_annotation_that_the_room_contradicts_is_refused(scene, question, answer):
    thought = think(ask(question, answer), scene)
    assert isinstance(thought, Refusal)
    assert thought.reason == "contradiction"


def test_a_vague_question_is_never_a_contradiction(scene):
    thought = think(ask("how many chairs around the table are red?", "7"), scene)
    assert named(thought.text) == compose("chair <1> <2> table <3> brown so 7", "7")


@pytest.mark.parametrize(
    ("thinking", "answer"),
    [
        ("chair <obj_001> dark brown", "dark brown"),
        ("bed none no", "no"),
        ("chair <obj_001> <obj_004>", "<obj_001> <obj_004>"),
        ("chair none", "none"),
        ("bed <obj_001> red so in the corner", "in the corner"),
    ],
)
def test_second_pass_reads_the_conclusion_off_the_reasoning(thinking, answer):
    assert conclude(thinking) == answer


def test_faults_come_at_their_rates_and_the_same_again(scene):
    rates = {"format": 0.1, "length": 0.1, "steps": 0.1, "target": 0.1, "consistency": 0.1}
    samples = [ask("what color is the table?", "brown", key=str(i), object_ids=(3,)) for i in range(600)]
    rows = drafted(samples, ScriptedTeacher(seed=0, fault_rates=rates), scene)
    counts = Counter(row.fault for row in rows)
    assert set(counts) == {None, *rates}
    assert all(35 < counts[name] < 85 for name in rates)
    assert drafted(samples[::-1], ScriptedTeacher(seed=0, fault_rates=rates), scene)[::-1] == rows


def test_no_reasoning_means_the_reference_alone(scene):
    samples = [
        ask("the chairs", "", task="grounding", object_ids=(2, 1), key="a"),
        ask("the bed", "", task="grounding", key="b"),
        ask("describe <obj_003>.", "a brown table.", task="captioning", object_ids=(3,), key="c"),
        ask("say it", " ", task="dialogue", key="d"),
    ]
    rows = drafted(samples, ScriptedTeacher(seed=0, fault_rates={}), scene)
    assert [row.cot for row in rows[:3]] == [
        "<answer><obj_001> <obj_002></answer>",
        "<answer>none</answer>",
        "<answer>a brown table.</answer>",
    ]
    assert isinstance(rows[3], Rejection)
    assert rows[3].reason == "empty"


def test_drafts_keep_the_order_of_the_samples_however_long_one_takes(scene):
    samples = [ask("what color is the table?", "brown", key=str(i)) for i in range(30)]

    class Slow(ScriptedTeacher):
        async def think(self, sample, scene):
            await asyncio.sleep(0.02 if sample.id.endswith("0") else 0)
            return await super().think(sample, scene)

    rows = drafted(samples, Slow(seed=0, fault_rates={}), scene)
    assert [row.id for row in rows] == [sample.id for sample in samples]
    assert all(isinstance(row, Draft) for row in rows)


def drafted(samples, teacher, scene):
    async def collect():
        return [row async for row in draft_all(samples, teacher, lambda _: scene, THINK, concurrency=2)]

    return asyncio.run(collect())


def test_replay_repeats_scene_30k(scene, tmp_path):
    path = tmp_path / "scene30k.jsonl"
    row = {"scene_id": "scene0000_00", "question": "what?", "cot": compose("the chair is red .", "red")}
    path.write_text(json.dumps(row) + "\n")
    teacher = ReplayTeacher.load(path)
    assert asyncio.run(teacher.think(ask(" what? ", "red"), scene)) == Thought(row["cot"], None)
    assert asyncio.run(teacher.think(ask("who?", "red"), scene)).reason == "not recorded"
    path.write_text(json.dumps(row | {"cot": None}) + "\n")
    with pytest.raises(DataError, match=r"'cot'.*row 1"):
        ReplayTeacher.load(path)
