"""The packaged model behind a real `bentoml serve`: answers as in evaluation, and an end that breaks off nothing."""

import http.client
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from benchmarks.serving import Address, server
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.prompts import Request
from r1pipe.params import Params
from r1pipe.serving.bundle import find

ROOT = Path(__file__).parents[1]
QUESTIONS = [
    "what color is the chair?",
    "how many chairs are in the room?",
    "is there a bed?",
    "what is next to the table?",
]
CLIENTS = 24
SOON_S = 20
"""The end after the last answer: a second on a machine that is free."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "models/bento.tar").is_file(), reason="`make run` makes the package"),
]


@pytest.fixture(scope="module")
def bundle():
    return find(ROOT)


def stream(address: Address, scene_id: str, question: str) -> str:
    """The raw completion, pieced together from its events."""
    connection = http.client.HTTPConnection("localhost", address.port, timeout=60)
    body = json.dumps({"scene_id": scene_id, "question": question, "task": "qa"})
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    connection.request("POST", "/answer", body, headers)
    response = connection.getresponse()
    assert response.status == 200
    blocks = [block.split("\n") for block in response.read().decode().strip().split("\n\n")]
    assert blocks[-1][0] == "event: answer"
    return "".join(json.loads(data.removeprefix("data: "))["text"] for name, data in blocks if name == "event: text")


def together(ask, arguments):
    """What `ask` returns for each, all at once."""
    results = [None] * len(arguments)

    def run(i):
        results[i] = ask(*arguments[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(arguments))]
    for thread in threads:
        thread.start()
    return threads, results


def test_the_server_says_token_by_token_what_evaluation_says(bundle):
    params = Params.load(ROOT / "params.yaml")
    answerer = Answerer.load(bundle.model, features=bundle.features, backbones=bundle.backbones)
    pairs = [(scene_id, question) for scene_id in answerer.scene_ids for question in QUESTIONS]
    requests = [Request(scene_id, "qa", question) for scene_id, question in pairs]
    limit = params.evaluate.max_new_tokens
    expected = answerer.complete(requests, think=params.think, max_new_tokens=limit, batch_size=1)
    with server(bundle, batch_size=params.serve.max_batch_size) as serving:
        threads, found = together(stream, [(serving.address, *pair) for pair in pairs])
        for thread in threads:
            thread.join()
        questions, batches = serving.address.batches()
        metrics = serving.address.get("/metrics").decode()
    assert found == expected
    assert batches < questions  # some were answered together
    assert "r1_completion_tokens_total" in metrics and 'r1_step_seconds_bucket{le="0.1",step="answered"}' in metrics


def test_a_server_that_is_told_to_end_finishes_what_it_began(bundle):
    with server(bundle, batch_size=1) as serving:
        room = next(bundle.features.glob("*.safetensors")).stem
        threads, found = together(stream, [(serving.address, room, f"{QUESTIONS[0]} {i}") for i in range(CLIENTS)])
        while serving.address.batches()[0] < 3:  # the canary's, and the first of these
            time.sleep(0.01)
        assert any(thread.is_alive() for thread in threads)
        serving.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert serving.process.wait(SOON_S) == 0
    assert all(found)
