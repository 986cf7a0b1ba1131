"""Batch jobs over HTTP: two rounds at half the price, never submitted twice, whatever breaks."""

import asyncio
import sqlite3

import pytest
from gemini_server import GOOD_TEXT, GeminiServer, Sent, error, good, spoken
from test_synthesis_gemini import _key, gemini, run, spent  # noqa: F401  a fixture for this file as well
from tiny_room import ask, room

from r1pipe.errors import R1Error
from r1pipe.synthesis.batch import Batches
from r1pipe.synthesis.ledger import Ledger
from r1pipe.synthesis.money import Till
from r1pipe.synthesis.prompts import Prompts
from r1pipe.synthesis.request import Request
from r1pipe.synthesis.service import Service

SAMPLES = [ask(f"what is number {i}?", "brown") for i in range(5)]


@pytest.fixture(scope="module")
def scene():
    return room()


@pytest.fixture
def server():
    with GeminiServer() as server:
        yield server


def paths(server):
    return [asked.path.rpartition(":")[2] for asked in server.asked]


def test_a_batch_asks_all_reasoning_then_all_second_answers_at_its_own_price(server, scene, tmp_path):
    thoughts = run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert [(t.text, t.second_answer) for t in thoughts] == [(GOOD_TEXT, "brown")] * 5
    assert paths(server) == ["batchGenerateContent"] * 2
    assert spent(tmp_path) == pytest.approx(10 * (10 * 1.25 + 7 * 10.0) / 1e6 / 2)
    request = server.asked[0].body["batch"]["inputConfig"]["requests"]["requests"][0]
    assert "<think>" in request["request"]["systemInstruction"]["parts"][0]["text"]
    assert request["request"]["generationConfig"]["maxOutputTokens"] == 4096


def test_what_a_job_leaves_out_is_asked_one_by_one(server, scene, tmp_path):
    def answer(asked):
        return error(503) if asked.path == "batch" and "number 3" in asked.text else good(asked)

    server.answer = answer
    thoughts = run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert all(thought.second_answer == "brown" for thought in thoughts)
    assert paths(server) == ["batchGenerateContent"] * 2 + ["generateContent"] * 2


def test_refusals_in_a_job_are_refusals(server, scene, tmp_path):
    server.answer = lambda _: spoken(None, "SAFETY")
    assert {thought.reason for thought in run(server, tmp_path, scene, *SAMPLES, batch=True)} == {"blocked"}


@pytest.mark.parametrize(
    ("faults", "jobs"),
    [([error(503), error(429)], 2), ([Sent("close")], 2), ([Sent("close"), Sent("close")], 2)],
    ids=["refused", "made, but not heard of", "both rounds"],
)
def test_a_job_is_made_once_whatever_its_submission_says(server, scene, tmp_path, faults, jobs):
    server.job_faults = list(faults)
    run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert len(server.jobs) == jobs


@pytest.mark.parametrize("heard", ["planned", "made, name not heard", "name heard"])
def test_a_killed_run_s_job_is_found_again_and_not_submitted_twice(server, scene, tmp_path, heard):
    """The ledger as `kill -9` leaves it at each point of a submission."""
    requests = [Request.of(Prompts().first(sample, scene), gemini(server, tmp_path)) for sample in SAMPLES]

    async def killed():
        params = gemini(server, tmp_path)
        ledger, service = Ledger(params.ledger), Service(params, connections=1)
        batches = Batches(service, ledger, Till(params), params)
        await ledger.planned("r1pipe-x", [(request, 0.01) for request in requests])
        if heard != "planned":
            name = await batches._create("r1pipe-x", requests)
        if heard == "name heard":
            await ledger.submitted("r1pipe-x", name)
        await service.close()
        await ledger.close()

    asyncio.run(killed())
    run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert len(server.jobs) == 2
    with sqlite3.connect(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.execute("select count(*), count(prompt_tokens), count(job) from requests").fetchone() == (
            10,
            10,
            0,
        )


def test_a_failed_job_stops_the_run_and_costs_nothing(server, scene, tmp_path):
    server.job_state = "BATCH_STATE_FAILED"
    with pytest.raises(R1Error, match=r"batches/0 to succeed, found .*FAILED"):
        run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert not spent(tmp_path)
    server.job_state = "BATCH_STATE_SUCCEEDED"
    assert run(server, tmp_path, scene, *SAMPLES, batch=True)[0].second_answer == "brown"


def test_a_job_that_is_refused_says_why(server, scene, tmp_path):
    server.job_faults = [error(400, "too many jobs")]
    with pytest.raises(R1Error, match=r"Expected an answer from the Gemini API, found: refused, 400 too many jobs\."):
        run(server, tmp_path, scene, *SAMPLES, batch=True)
    assert run(server, tmp_path, scene, *SAMPLES, batch=True)[0].second_answer == "brown"
    assert len(server.jobs) == 2


def test_a_job_beyond_the_budget_is_not_submitted(server, scene, tmp_path):
    with pytest.raises(R1Error, match="budget"):
        run(server, tmp_path, scene, *SAMPLES, batch=True, budget=0.05)
    assert server.asked == []
