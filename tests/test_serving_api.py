"""The API streams, counts, logs, bounds and locks; whatever its schema allows is answered or refused, never a fault."""

import asyncio
import base64
import json
import logging
import re
import threading

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from prometheus_client import REGISTRY
from scan_files import cloud
from schemathesis import GenerationMode
from tiny_serving import COMPLETION, QUESTIONS, SCENE, FixedAnswerer, client_of, served_model

from examples.client import Client
from r1pipe.errors import ParamsError
from r1pipe.serving import api, guards, page
from r1pipe.serving.answer import Answer
from r1pipe.serving.telemetry import JsonLines

ASK = {"scene_id": SCENE, "question": QUESTIONS[0]}
STREAM = {"accept": "text/event-stream"}


class HeldAnswerer(FixedAnswerer):
    """Answers when the test lets it."""

    busy, go_on = threading.Event(), threading.Event()

    def answer(self, requests, **options):
        self.busy.set()
        assert self.go_on.wait(20)
        super().answer(requests, **options)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_model(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client(served):
    return client_of(served, raise_server_exceptions=False)


def events(response):
    """Names and data of server-sent events."""
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def test_the_documentation_comes_from_this_server_alone(client):
    html = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(files) == 3 and "/openapi.json" in html
    assert "http" not in html.replace("http-equiv", "")
    assert [client.get(file).status_code for file in files] == [200] * 3


@pytest.mark.parametrize("path", ["/answer", "/locate"])
def test_an_answer_streams_as_it_grows_and_ends_whole(client, path):
    response = client.post(path, json=ASK, headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    *texts, (name, answer) = events(response)
    assert {name for name, _ in texts} == {"text"} and name == "answer"
    assert "".join(data["text"] for _, data in texts) == COMPLETION
    said = Answer.model_validate(answer).model_dump(mode="json", exclude={"timings"})
    assert said == Answer.model_validate(client.post(path, json=ASK).json()).model_dump(
        mode="json", exclude={"timings"}
    )


def test_a_question_that_cannot_be_asked_is_refused_before_its_stream_begins(client):
    response = client.post("/answer", json=ASK | {"scene_id": "nowhere"}, headers=STREAM)
    assert (response.status_code, response.json()["detail"][:8]) == (404, "Expected")


def test_the_example_client_asks_streams_uploads_and_raises_the_servers_sentence(client, tmp_path):
    example, ask = Client(client), api.Ask(**ASK)
    assert example.ask(ask).answer == "red <obj_001>"
    *texts, answer = example.stream(ask)
    assert ("".join(texts), answer.answer) == (COMPLETION, "red <obj_001>")
    (tmp_path / "room.npz").write_bytes(cloud())
    assert example.ask_scan(tmp_path / "room.npz", QUESTIONS[0]).scene_id.startswith("scan-")
    for refused in (example.ask, lambda ask: list(example.stream(ask))):
        with pytest.raises(RuntimeError, match="known scenes"):
            refused(ask.model_copy(update={"scene_id": "nowhere"}))


@pytest.fixture
def held(tmp_path):
    """A client of a server that is busy, and takes one more question and no other."""
    HeldAnswerer.busy.clear(), HeldAnswerer.go_on.clear()
    served = served_model(tmp_path, HeldAnswerer, max_waiting=1, max_batch_size=1, timeout_s=0.3)
    yield client_of(served, raise_server_exceptions=False), served
    HeldAnswerer.go_on.set()
    served.close()


def test_a_late_answer_is_a_sentence(held):
    client, _ = held
    response = client.post("/answer", json=ASK)
    assert (response.status_code, "within 0.3 s" in response.json()["detail"]) == (504, True)
    assert events(client.post("/answer", json=ASK, headers=STREAM))[-1][0] == "error"


def test_a_full_queue_says_when_to_come_again(held):
    client, served = held
    ask = api.Ask(**ASK)
    served.begin(ask)
    assert HeldAnswerer.busy.wait(20)
    waiting = served.begin(ask)
    for headers in ({}, STREAM):
        response = client.post("/answer", json=ASK, headers=headers)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "ask again later" in response.json()["detail"]
    HeldAnswerer.go_on.set()
    assert waiting.result(20).completion.text == COMPLETION


def test_a_server_that_closes_answers_what_it_took(held):
    _, served = held
    futures = [served.begin(api.Ask(**ASK))]
    assert HeldAnswerer.busy.wait(20)
    futures.append(served.begin(api.Ask(**ASK)))
    closing = threading.Thread(target=served.close)
    closing.start()
    HeldAnswerer.go_on.set()
    closing.join(20)
    assert [future.result(0).completion.text for future in futures] == [COMPLETION] * 2


@pytest.mark.parametrize(("sent", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 129, False), ("", False)])
def test_a_request_id_is_said_back_or_made(client, sent, kept):
    said = client.get("/scenes", headers={"x-request-id": sent}).headers["x-request-id"]
    assert (said == sent) is kept
    assert said


def test_the_log_is_a_json_object_a_line_with_the_requests_id(client, caplog):
    with caplog.at_level(logging.INFO, "r1pipe"):
        client.post("/answer", json=ASK | {"scene_id": "nowhere"}, headers={"x-request-id": "mine"})
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert {key: line[key] for key in ("message", "method", "path", "status")} == {
        "message": "request", "method": "POST", "path": "/answer", "status": 404
    }  # fmt: skip


def test_a_fault_is_no_stack_trace_and_its_log_is_found_by_the_request(client, served, monkeypatch, caplog):
    def fault():
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served, "rows", fault)
    response = client.get("/scenes", headers={"x-request-id": "broken-1"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "broken-1")
    assert "broken-1" in response.json()["detail"] and "secret" not in response.text
    assert any("ZeroDivisionError" in JsonLines().format(record) for record in caplog.records)


def test_steps_tokens_batches_and_the_cache_are_counted(client):
    def count(name, **labels):
        return REGISTRY.get_sample_value(name, labels) or 0

    def counts():
        steps = [count("r1_step_seconds_count", step=step) for step in ("received", "waited", "answered", "looked")]
        return [*steps, count("r1_batch_size_count"), count("r1_completion_tokens_total", task="qa")]

    before = counts()
    client.post("/answer", json=ASK)
    assert [after - was for after, was in zip(counts(), before, strict=True)] == [1, 1, 1, 1, 1, 12]


TOKEN = "correct horse"


def basic(password):
    return f"Basic {base64.b64encode(b'anybody:' + password).decode()}"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {TOKEN}", 200), (f"bearer {TOKEN} ", 200), (basic(TOKEN.encode()), 200), (None, 401), ("Bearer", 401),
        ("Bearer wrong", 401), (TOKEN, 401), (basic(b""), 401), ("Basic !!", 401), ("Bearer \u00e9".encode("latin-1"), 401),
    ],
)  # fmt: skip
def test_who_asks_must_know_the_token(served, header, status):
    client = client_of(served, token=TOKEN, raise_server_exceptions=False)
    headers = {} if header is None else {"authorization": header}
    assert client.get("/scenes", headers=headers).status_code == status
    response = client.post("/answer", json=ASK, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"].startswith("Bearer") and "token" in response.json()["detail"]


def test_the_page_asks_its_visitor_for_the_token_and_an_empty_one_is_no_lock(served):
    app = api.create_app(token=TOKEN)
    page.mount(app, lambda: api.attached(app))
    api.attach(app, served)
    with TestClient(app) as client:
        refused = client.get("/ui/")
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert client.get("/ui/", headers={"authorization": basic(TOKEN.encode())}).status_code == 200
    with pytest.raises(ParamsError, match="empty"):
        api.create_app(token=" ")


def test_no_other_origin_is_let_in(served):
    app = api.create_app()
    page.mount(app, lambda: api.attached(app))
    api.attach(app, served)
    with TestClient(app) as client:
        for path in ("/scenes", "/ui/", "/ui/config"):
            for method in ("GET", "OPTIONS"):
                headers = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
                found = client.request(method, path, headers=headers).headers
                assert not [name for name in found if name.startswith("access-control-")], (path, method)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 100_000, 422),
        (b'{"scene_id": "s", "question": "q", "pose": ' + b"9" * 5000 + b"}", 422),
        (b'{"scene_id": "room0000_00", "question": "\\ud800"}', 422),
        (b'{"scene_id": "\\ud800", "question": "q"}', 422),
        (
            b'{"scene_id": "room0000_00", "question": "q", "pose": {"position": [NaN, 0, 0], "rotation": [0, 0, 0, 1]}}',
            422,
        ),
        (
            b'{"scene_id": "room0000_00", "question": "q", "pose": {"position": [0, 0, 0], "rotation": [0, 0, 0, 0]}}',
            422,
        ),
        (b"\xff\xfe", 422),
    ],
    ids=["deep", "digits", "half a character", "half a character of a room", "NaN", "no rotation", "no text"],
)
@pytest.mark.parametrize("path", ["/answer", "/plan"])
def test_json_that_breaks_parsers_is_refused_in_a_sentence(client, path, content, status):
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code in (status, 400)
    assert isinstance(response.json()["detail"], str)


def test_a_declared_length_that_is_no_number_is_refused():
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    scope = {"type": "http", "path": "/answer", "headers": [(b"content-length", b"9" * 30)], "method": "POST"}
    asyncio.run(guards.BoundedBody(None)(scope, None, send))
    assert statuses[0] == 413


OPERATIONS = (
    "GET /scenes", "GET /model", "POST /answer", "POST /describe", "POST /caption", "POST /locate", "POST /chat", "POST /plan",
)  # fmt: skip


@pytest.fixture(scope="module")
def operations(served):
    app = api.create_app()
    api.attach(app, served)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    return {operation.label: operation for operation in (found.ok() for found in schema.get_all_operations())}


def test_every_operation_is_tried(operations):
    assert set(operations) == set(OPERATIONS)


# Schemathesis' own pytest plugin does not know this pytest's collection.
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does not fit"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_sent_by_the_schema_or_against_it_is_answered_or_refused(operations, label, mode):
    if mode is GenerationMode.NEGATIVE and label.startswith("GET"):
        pytest.skip("there is nothing to get wrong")

    @given(case=operations[label].as_strategy(generation_mode=mode))
    @settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def tried(case):
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and "scene_id" in case.body:
            case.body["scene_id"] = SCENE  # or nothing behind the first check is tried
        response = case.call()
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert isinstance(response.json()["detail"], str)

    tried()
