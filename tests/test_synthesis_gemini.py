"""How Gemini is asked, over HTTP: prompts, faults, patience, pace, money, and a ledger that repeats nothing."""

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from gemini_server import FAULTY, GOOD_TEXT, GeminiServer, Sent, error, good, sent, spoken
from google.oauth2.credentials import Credentials
from tiny_room import ask, room

from r1pipe.errors import DataError, MissingError, R1Error
from r1pipe.params import Params
from r1pipe.synthesis.gemini import GeminiTeacher
from r1pipe.synthesis.limiter import TokenBucket
from r1pipe.synthesis.prompts import Picture, Prompts, prompt_version
from r1pipe.synthesis.service import KEY_VARIABLE, PLACE_VARIABLES, VERTEX_VARIABLE
from r1pipe.synthesis.teacher import Refusal, Thought

ROOT = Path(__file__).parents[1]
DEFAULTS = Params.load(ROOT / "params.yaml").synthesize.gemini
TABLE = ask("what color is the table?", "brown")
LAMP = ask("what color is the lamp?", "white")
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}


@pytest.fixture(scope="module")
def scene():
    return room()


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    monkeypatch.delenv(VERTEX_VARIABLE, raising=False)


@pytest.fixture
def server():
    with GeminiServer() as server:
        yield server


def gemini(server, folder, **changes):
    quick = {"requests_per_second": 1000.0, "timeout_s": 5.0, "backoff_s": 0.001, "batch_poll_s": 0.01}
    place = {"base_url": server.url, "ledger": folder / "ledger.sqlite"}
    return DEFAULTS.model_copy(update=quick | place | changes)


def run(server, folder, scene, *samples, prompts=None, concurrency=2, **changes):
    async def asked():
        teacher = GeminiTeacher(gemini(server, folder, **changes), prompts or Prompts(), concurrency=concurrency)
        try:
            await teacher.prepare(lambda: samples, lambda _: scene)
            return await asyncio.gather(*(teacher.think(sample, scene) for sample in samples))
        finally:
            await teacher.close()

    return asyncio.run(asked())


def spent(folder):
    with sqlite3.connect(folder / "ledger.sqlite") as ledger:
        return ledger.execute("select sum(dollars) from requests").fetchone()[0]


def script(*answers):
    """These answers, one after the other."""
    left = list(answers)
    return lambda _: left.pop(0)


def test_gemini_gets_the_room_but_not_the_answer_and_then_the_reasoning_but_not_the_room(server, scene, tmp_path):
    (thought,) = run(server, tmp_path, scene, TABLE)
    assert thought == Thought(GOOD_TEXT, "brown", prompt=prompt_version("qa"))
    first, second = server.asked
    assert first.path.endswith("/models/gemini-2.5-pro:generateContent")
    assert first.api_key == "secret"
    assert first.body["generationConfig"]["maxOutputTokens"] == DEFAULTS.max_output_tokens
    assert list(first.body["generationConfig"]["thinkingConfig"].values()) == [DEFAULTS.thinking_budget]
    assert "<think>" in first.body["systemInstruction"]["parts"][0]["text"]
    assert "<obj_003> table, brown, centre (2.00, 0.00, 0.40)" in first.text
    assert "<obj_004> lamp, white, centre (2.00, 0.00, 1.00), size (0.20, 0.20, 0.40), on <obj_003> table" in first.text
    assert "It is brown." in second.text
    assert "trash can" not in second.text
    assert "systemInstruction" not in second.body


def test_pictures_go_along_and_are_part_of_what_is_paid_once(server, scene, tmp_path):
    png = b"\x89PNG"
    shown = [Prompts(pictures=lambda _, d=d: (Picture(png, d),)) for d in ("one", "one", "two")]
    for prompts in shown:
        run(server, tmp_path, scene, TABLE, prompts=prompts)
    assert [asked.second for asked in server.asked] == [False, True, False]
    picture, words = server.asked[0].body["contents"][0]["parts"]
    assert picture["inlineData"]["data"] == "iVBORw=="
    assert "Pictures of the room: 1, attached." in words["text"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (FAULTY["blocked"], "blocked"),
        (spoken(None, "SAFETY"), "blocked"),
        (spoken("<think>The table", "MAX_TOKENS"), "truncated"),
        (spoken("  "), "empty"),
        (FAULTY["empty"], "empty"),
        (sent({"candidates": None}), "empty"),
        (FAULTY["malformed"], "malformed"),
        (sent([]), "malformed"),
        (sent({"candidates": [{"content": {"parts": "text"}}]}), "malformed"),
        (Sent(200, b"\xff\xfe"), "malformed"),
        (Sent(200, b""), "malformed"),
        (FAULTY["huge"], "oversized"),
        (spoken(None, "A_REASON_OF_NEXT_YEAR"), "blocked"),
    ],
)
def test_an_answer_without_a_text_is_a_refusal_and_is_not_asked_again(server, scene, tmp_path, answer, reason):
    server.answer = lambda _: answer
    for refusal in run(server, tmp_path, scene, TABLE, TABLE, concurrency=1):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == reason
    assert len(server.asked) == 1


def test_a_refused_second_answer_refuses_the_sample(server, scene, tmp_path):
    server.answer = script(spoken(GOOD_TEXT), spoken(None, "RECITATION"))
    assert run(server, tmp_path, scene, TABLE)[0] == Refusal("blocked", "RECITATION")
    assert run(server, tmp_path, scene, TABLE)[0] == Refusal("blocked", "RECITATION")


@pytest.mark.parametrize("text", [FAULTY["nested"], FAULTY["missing"]], ids=["nested", "missing"])
def test_wrong_tags_are_left_to_the_filters_and_not_asked_about(server, scene, tmp_path, text):
    server.answer = lambda _: text
    (thought,) = run(server, tmp_path, scene, TABLE)
    assert thought.second_answer is None
    assert len(server.asked) == 1


def test_a_second_answer_in_tags_is_the_answer(server, scene, tmp_path):
    server.answer = script(spoken(GOOD_TEXT), spoken("<answer>brown</answer>\n"))
    assert run(server, tmp_path, scene, TABLE)[0].second_answer == "brown"


@pytest.mark.parametrize(
    "busy",
    [error(429, **{"Retry-After": "0.3"}), error(503, **{"Retry-After": "0.3"}), error(429, details=[RETRY_INFO])],
    ids=["429", "503", "retry info"],
)
def test_the_wait_is_as_long_as_the_service_asks_for(server, scene, tmp_path, busy):
    times = []

    def answer(asked):
        times.append(time.monotonic())
        return busy if asked.attempt == 1 and not asked.second else good(asked)

    server.answer = answer
    assert run(server, tmp_path, scene, TABLE)[0].second_answer == "brown"
    assert times[1] - times[0] >= 0.3


def test_what_passes_is_asked_again(server, scene, tmp_path):
    server.answer = script(
        error(500), error(503), Sent("close"), Sent("hang"), error(408), spoken(GOOD_TEXT), spoken("brown")
    )
    assert run(server, tmp_path, scene, TABLE, timeout_s=0.2)[0].second_answer == "brown"
    assert len(server.asked) == 7


@pytest.mark.parametrize(
    ("answer", "sentence", "times"),
    [
        (error(401), "found 401 no", 1),
        (error(404, "no such model"), "no such model", 1),
        (error(400, "API key not valid"), "refused: 400 API key not valid; 1 requests", 1),
        (error(503), "unavailable: 503 no, attempt 3 of 3", 3),
        (error(429, **{"Retry-After": "3600"}), r"at most 120 s .* asks for 3600 s", 1),
    ],
)
def test_a_service_that_refuses_everything_stops_the_run(server, scene, tmp_path, answer, sentence, times):
    server.answer = lambda _: answer
    with pytest.raises(R1Error, match=sentence):
        run(server, tmp_path, scene, TABLE, attempts=3)
    assert len(server.asked) == times


def test_one_request_that_finds_no_answer_rejects_its_sample_and_is_asked_again_next_time(server, scene, tmp_path):
    run(server, tmp_path, scene, TABLE)
    server.answer = lambda _: error(503)
    (refusal,) = run(server, tmp_path, scene, LAMP, attempts=2)
    assert refusal == Refusal("unavailable", "503 no, attempt 2 of 2")
    server.answer = lambda _: error(400)
    assert run(server, tmp_path, scene, LAMP)[0].reason == "refused"
    server.answer = good
    assert run(server, tmp_path, scene, LAMP)[0].second_answer == "brown"


def test_twenty_requests_in_a_row_without_an_answer_stop_the_run(server, scene, tmp_path):
    run(server, tmp_path, scene, TABLE)
    server.answer = lambda _: error(400)
    samples = [ask(f"is {i} odd?", "yes") for i in range(40)]
    with pytest.raises(R1Error, match="20 requests in a row"):
        run(server, tmp_path, scene, *samples)


def test_nothing_is_asked_twice_not_even_at_once_or_by_a_later_run(server, scene, tmp_path):
    first, second = run(server, tmp_path, scene, TABLE, TABLE)
    (third,) = run(server, tmp_path, scene, TABLE)
    assert first == second == third
    assert len(server.asked) == 2
    run(server, tmp_path, scene, TABLE, temperature=0.1)
    assert len(server.asked) == 4


def test_a_request_stands_in_the_ledger_before_it_is_sent(server, scene, tmp_path):
    rows = []

    def answer(asked):
        with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
            rows.extend(ledger.execute("select attempts, prompt_tokens from requests"))
        return good(asked) if asked.attempt > 1 or asked.second else error(500)

    server.answer = answer
    run(server, tmp_path, scene, TABLE)
    assert rows[0] == (1, None)
    assert (2, None) in rows


def test_answers_on_their_way_are_waited_for_when_the_run_stops(server, scene, tmp_path):
    def answer(asked):
        if "lamp" in asked.text.split("Question")[1]:
            return error(401)
        time.sleep(0.2)
        return good(asked)

    server.answer = answer
    with pytest.raises(R1Error, match="401"):
        run(server, tmp_path, scene, TABLE, LAMP)
    server.answer = good
    run(server, tmp_path, scene, TABLE)
    assert [asked.second for asked in server.asked if "table" in asked.text.split("Question")[1]] == [False, True]


def test_the_budget_is_never_exceeded_and_what_it_paid_for_stays(server, scene, tmp_path):
    samples = [ask(f"what is number {i}?", "brown") for i in range(20)]
    for _ in range(2):
        with pytest.raises(R1Error, match=r"Expected to stay below .*budget"):
            run(server, tmp_path, scene, *samples, max_output_tokens=100, budget=0.0045)
        assert 5 < len(server.asked) < 40
        assert 0 < spent(tmp_path) < 0.0045
    run(server, tmp_path, scene, *samples, max_output_tokens=100)
    assert len(server.asked) == 40
    assert max(server.charged.values()) == 1


def test_the_pace_is_the_limiter_s():
    async def taken(rate, count):
        bucket = TokenBucket(rate)
        start = asyncio.get_running_loop().time()
        for _ in range(count):
            await bucket.take()
        return asyncio.get_running_loop().time() - start

    assert asyncio.run(taken(50, 20)) >= 19 / 50 - 0.1


def test_two_runs_do_not_share_a_ledger(server, scene, tmp_path):
    async def twice():
        teacher = GeminiTeacher(gemini(server, tmp_path), Prompts(), concurrency=1)
        try:
            with pytest.raises(R1Error, match="another run"):
                GeminiTeacher(gemini(server, tmp_path), Prompts(), concurrency=1)
        finally:
            await teacher.close()

    asyncio.run(twice())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes(b"not a database" * 100), "a SQLite file, at .*not a database"),
        (
            lambda path: sqlite3.connect(path).executescript("create table other (x); pragma user_version = 7"),
            "version 7",
        ),
    ],
)
def test_a_file_that_is_no_ledger_is_named(server, tmp_path, make, sentence):
    make(tmp_path / "ledger.sqlite")
    with pytest.raises(DataError, match=sentence):
        GeminiTeacher(gemini(server, tmp_path), Prompts(), concurrency=1)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, KEY_VARIABLE),
        ({VERTEX_VARIABLE: "true"}, f"found no {PLACE_VARIABLES[0]}"),
        ({VERTEX_VARIABLE: "true", PLACE_VARIABLES[0]: "p"}, f"found no {PLACE_VARIABLES[1]}"),
        (
            {
                VERTEX_VARIABLE: "1",
                **dict.fromkeys(PLACE_VARIABLES, "p"),
                "GOOGLE_APPLICATION_CREDENTIALS": "none.json",
            },
            "credentials.*none.json",
        ),
    ],
    ids=["nothing", "no project", "no location", "no credentials"],
)
def test_a_missing_key_is_named(monkeypatch, server, tmp_path, environment, sentence):
    monkeypatch.delenv(KEY_VARIABLE)
    for name in (*PLACE_VARIABLES, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MissingError, match=sentence):
        GeminiTeacher(gemini(server, tmp_path), Prompts(), concurrency=1)


def test_vertex_is_asked_with_its_credentials_and_takes_no_batches(monkeypatch, server, scene, tmp_path):
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setattr("google.auth.default", lambda scopes: (Credentials(token="pass"), None))
    for name, value in {VERTEX_VARIABLE: "true", **dict.fromkeys(PLACE_VARIABLES, "here")}.items():
        monkeypatch.setenv(name, value)
    assert run(server, tmp_path, scene, TABLE)[0].second_answer == "brown"
    assert server.asked[0].path.endswith(
        "/projects/here/locations/here/publishers/google/models/gemini-2.5-pro:generateContent"
    )
    assert server.asked[0].api_key is None
    with pytest.raises(R1Error, match="found Vertex AI"):
        run(server, tmp_path, scene, TABLE, batch=True)
