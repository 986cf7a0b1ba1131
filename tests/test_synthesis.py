"""Chains of thought: what the scripted teacher says, which mistakes it makes, and how Gemini is asked."""

import asyncio
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from r1pipe.datasets import Pose, Sample
from r1pipe.datasets.draft import Draft, Rejection
from r1pipe.errors import DataError, MissingError, R1Error
from r1pipe.geometry import Box
from r1pipe.params import Gemini, Think
from r1pipe.response import compose, parse
from r1pipe.scenes import Scene, SceneObject
from r1pipe.scenes.colours import NAMED
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.gemini import KEY_VARIABLE, GeminiTeacher
from r1pipe.synthesis.patterns import conclude
from r1pipe.synthesis.replay import ReplayTeacher
from r1pipe.synthesis.scripted import ScriptedTeacher
from r1pipe.synthesis.teacher import Refusal, Thought

THINK = Think(
    qa=True, situated=True, grounding=False, captioning=False, dialogue=False, planning=False, description=False
)
OBJECTS = (
    (0, "floor", "gray", (0, 0, 0, 6, 6, 0.1)),
    (1, "chair", "red", (1, 0, 0.5, 0.5, 0.5, 1.0)),
    (2, "chair", "blue", (-2, 0, 0.6, 0.8, 0.8, 1.2)),
    (3, "table", "brown", (2, 0, 0.4, 1.0, 1.0, 0.8)),
    (4, "lamp", "white", (2, 0, 1.0, 0.2, 0.2, 0.4)),
    (5, "trash can", "black", (0, 2.5, 0.3, 0.3, 0.3, 0.6)),
    (6, "bookshelf", "brown", (-2, -2.5, 1.0, 1.0, 0.6, 2.0)),
)
FACING_NORTH = Pose(position=(0.0, 0.0, 0.0), rotation=(0.0, 0.0, 0.0, 1.0))


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    clouds = [(i, colour, rng.uniform(-0.5, 0.5, (40, 3)) * box[3:] + box[:3]) for i, _, colour, box in OBJECTS]
    return Scene(
        "scene0000_00",
        np.concatenate([xyz for _, _, xyz in clouds]).astype(np.float32),
        np.concatenate([np.tile(NAMED[colour], (40, 1)) for _, colour, _ in clouds]).astype(np.uint8),
        np.repeat([i for i, _, _ in clouds], 40).astype(np.int32),
        tuple(SceneObject(i, label, 0, Box(*map(float, box))) for i, label, _, box in OBJECTS),
    )


def ask(question, answer, *, task="qa", key="0", object_ids=(), pose=None):
    answers = () if task == "grounding" else (answer,)
    return Sample(
        id=f"test-{key}", scene_id="scene0000_00", task=task, question=question, answers=answers, pose=pose,
        object_ids=object_ids, source="scanqa", split="train",
    )  # fmt: skip


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


def spoken(text, finish="STOP"):
    content = {"role": "model", "parts": [{"text": text}] if text is not None else []}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 17}
    return 200, {}, {"candidates": [{"content": content, "finishReason": finish}], "usageMetadata": usage}


def error(code, **headers):
    return code, headers, {"error": {"code": code, "message": "no", "status": "NO"}}


GOOD = spoken("<think>The table is <obj_003>. It is brown.</think><answer>brown</answer>")
SECOND = spoken("brown\n")


@pytest.fixture
def server():
    """Speaks Gemini's REST API: gives the scripted replies one after the other, and keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append((self.path, self.headers["x-goog-api-key"], body))
            code, headers, reply = server.replies.pop(0)
            data = json.dumps(reply).encode()
            self.send_response(code)
            for name, value in {
                "content-type": "application/json",
                "content-length": str(len(data)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.replies = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def gemini(server, folder):
    return Gemini(
        model="gemini-2.5-pro", temperature=0.5, thinking_budget=64, max_output_tokens=256,
        base_url=f"http://127.0.0.1:{server.server_port}", ledger=folder / "ledger.sqlite",
    )  # fmt: skip


def ask_gemini(server, folder, scene, *samples):
    async def run():
        teacher = GeminiTeacher(gemini(server, folder), concurrency=2, backoff_s=0.001)
        try:
            return await asyncio.gather(*(teacher.think(sample, scene) for sample in samples))
        finally:
            await teacher.close()

    return asyncio.run(run())


TABLE = ask("what color is the table?", "brown")


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")


def test_gemini_gets_the_room_but_not_the_answer_and_then_the_reasoning_but_not_the_room(server, scene, tmp_path):
    server.replies = [GOOD, SECOND]
    (thought,) = ask_gemini(server, tmp_path, scene, TABLE)
    assert thought == Thought("<think>The table is <obj_003>. It is brown.</think><answer>brown</answer>", "brown")
    (path, key, first), (_, _, second) = server.asked
    assert path.endswith("/models/gemini-2.5-pro:generateContent")
    assert key == "secret"
    assert first["generationConfig"]["temperature"] == 0.5
    assert first["generationConfig"]["maxOutputTokens"] == 256
    assert list(first["generationConfig"]["thinkingConfig"].values()) == [64]
    prompt, recall = (body["contents"][0]["parts"][0]["text"] for body in (first, second))
    assert "<obj_003> table, brown, centre (2.00, 0.00, 0.40)" in prompt
    assert "It is brown." in recall
    assert "trash can" not in recall


def test_gemini_waits_where_it_is_told_to_and_comes_again(server, scene, tmp_path):
    server.replies = [error(429, **{"Retry-After": "0.3"}), error(500), error(503), GOOD, SECOND]
    loop_time = []

    async def run():
        start = asyncio.get_running_loop().time()
        teacher = GeminiTeacher(gemini(server, tmp_path), concurrency=1, backoff_s=0.001)
        thought = await teacher.think(TABLE, scene)
        loop_time.append(asyncio.get_running_loop().time() - start)
        await teacher.close()
        return thought

    assert asyncio.run(run()).second_answer == "brown"
    assert loop_time[0] >= 0.3
    assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([(200, {}, {"promptFeedback": {"blockReason": "SAFETY"}})], "blocked"),
        ([spoken(None, "SAFETY")], "blocked"),
        ([spoken("<think>The table", "MAX_TOKENS")], "truncated"),
        ([spoken("  ")], "empty"),
        ([(200, {}, {"candidates": []})], "empty"),
        ([GOOD, spoken(None, "RECITATION")], "blocked"),
    ],
    ids=["prompt blocked", "answer blocked", "truncated", "white space", "no candidate", "second blocked"],
)
def test_gemini_without_a_text_is_a_refusal_and_is_not_asked_again(server, scene, tmp_path, replies, reason):
    server.replies = list(replies)
    for _ in range(2):
        (refusal,) = ask_gemini(server, tmp_path, scene, TABLE)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == reason
    assert len(server.asked) == len(replies)


def test_ledger_repeats_nothing_not_even_at_once_or_after_a_crash(server, scene, tmp_path):
    server.replies = [GOOD, SECOND]
    first, second = ask_gemini(server, tmp_path, scene, TABLE, TABLE)
    (third,) = ask_gemini(server, tmp_path, scene, TABLE)
    assert first == second == third
    assert len(server.asked) == 2
    other = ask("what color is the lamp?", "white")
    server.replies = [GOOD, error(400)]
    with pytest.raises(R1Error, match="found 400 no at attempt 1"):
        ask_gemini(server, tmp_path, scene, other)
    server.replies = [SECOND]
    ask_gemini(server, tmp_path, scene, other)
    assert len(server.asked) == 5


def test_gemini_that_stays_away_stops_the_run(server, scene, tmp_path):
    server.replies = [error(503)] * 8
    with pytest.raises(R1Error, match="found 503 no at attempt 8 of 8"):
        ask_gemini(server, tmp_path, scene, TABLE)


def test_gemini_without_a_key_names_the_variable(monkeypatch, server, tmp_path):
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(MissingError, match="GEMINI_API_KEY"):
        GeminiTeacher(gemini(server, tmp_path), concurrency=1)
