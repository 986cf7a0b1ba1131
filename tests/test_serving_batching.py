"""Questions that wait are answered together, each as if it were alone."""

import threading
from dataclasses import replace

import pytest
from tiny_serving import QUESTIONS, ROOT, SCENE, served_model

from r1pipe.errors import DataError, MissingError
from r1pipe.models.r1 import prefixes
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.hearing import Completion
from r1pipe.models.r1.prompts import Request
from r1pipe.params import Params
from r1pipe.serving.answer import BusyError
from r1pipe.serving.batching import Batcher

LIMIT = 12


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return served_model(tmp_path_factory.mktemp("bundle"), Answerer)._answerer


@pytest.fixture(scope="module")
def think():
    return Params.load(ROOT / "params.yaml").think


@pytest.fixture(scope="module")
def requests():
    tasks = ("qa", "captioning", "description", "grounding")
    asked = [Request(SCENE, task, question) for task in tasks for question in QUESTIONS]
    return [*asked, Request(SCENE, "dialogue", QUESTIONS[0], history=("what is red?", "a chair " * 20))]


def said(answerer, requests, think, grown=None):
    completions = {}
    answerer.answer(requests, think=think, max_new_tokens=LIMIT, whole=completions.__setitem__, grown=grown or {})
    return [completions[row] for row in range(len(requests))]


def test_an_answer_is_the_same_whatever_it_is_batched_with_and_the_same_as_in_evaluation(answerer, think, requests):
    alone = [said(answerer, [request], think)[0] for request in requests]
    together = said(answerer, requests, think)
    assert together == alone
    assert len({completion.text for completion in alone}) > 1
    evaluated = answerer.complete(requests, think=think, max_new_tokens=LIMIT, batch_size=4)
    assert [completion.text for completion in together] == evaluated


@pytest.fixture
def read(answerer):
    """Rows and tokens that the language model has read in each forward pass of more than a token."""
    shapes = []

    def look(_, __, kwargs):
        rows, length, _ = kwargs["inputs_embeds"].shape
        shapes.extend([(rows, length)] if length > 1 else [])

    handle = answerer.model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    yield shapes
    handle.remove()


def test_a_room_is_read_once_and_anew_where_it_was_taken_in_anew_or_forgotten(
    answerer, think, requests, read, monkeypatch
):
    features = answerer.features(SCENE)
    changed = replace(features, object_features=features.object_features[::-1].copy())
    neighbour = replace(features, scene_id="room0001_00")
    fresh = Answerer(answerer.model, answerer.processor, answerer.store)
    monkeypatch.setattr(prefixes, "MAX_KEPT", 1)
    passes = []
    for scene in (features, features, changed, neighbour, features):
        fresh.add(scene)
        asked = 2 * [requests[0]._replace(scene_id=scene.scene_id)]
        read.clear()
        completions = said(fresh, asked, think)
        passes.append(list(read))
        evaluated = fresh.complete(asked, think=think, max_new_tokens=LIMIT, batch_size=2)
        assert [completion.text for completion in completions] == evaluated
    head, rest = passes[0]
    assert head[0] == 1 < rest[0] and head[1] > fresh.model.config.num_scene_tokens
    assert passes == [[head, rest], [rest], [head, rest], [head, rest], [head, rest]]


def test_a_text_grows_to_the_completion(answerer, think, requests):
    texts = []
    first, second = said(answerer, requests[:2], think, {1: texts.append})
    assert texts == sorted(texts, key=len)
    assert all(second.text.startswith(text) for text in texts)
    assert len(texts) >= second.num_tokens - 1 > 0
    assert first.num_tokens <= LIMIT


def test_an_end_is_told_before_the_slowest_has_ended(answerer, think, requests, monkeypatch):
    # What this question's answer says last ends it: it is over a step before its neighbours.
    end = answerer.model.generation_config.eos_token_id
    order = []
    tokens = said(answerer, requests[:1], think)[0].num_tokens
    monkeypatch.setattr(answerer.model.generation_config, "eos_token_id", list({end, *range(40)}))
    answerer.answer(
        requests,
        think=think,
        max_new_tokens=LIMIT,
        grown={},
        whole=lambda row, completion: order.append(completion.num_tokens),
    )
    assert order == sorted(order) and len(order) == len(requests) and tokens == LIMIT


class Gate:
    """Answers nothing before it is opened; remembers its batches."""

    def __init__(self, *, broken=()):
        self.batches, self.broken = [], set(broken)
        self.busy, self.open = threading.Event(), threading.Event()

    def __call__(self, requests, *, whole, grown):
        self.batches.append([request.question for request in requests])
        self.busy.set()
        assert self.open.wait(10)
        for row, request in enumerate(requests):
            if request.question in self.broken:
                raise MissingError(f"Expected {request.question}, found nothing.")
            whole(row, Completion(request.question.upper(), 1))


def ask(batcher, question):
    return batcher.submit(Request(SCENE, "qa", question))


def held(gate, *, size=3, waiting=8):
    """A batcher that is busy with `first`."""
    batcher = Batcher(gate, max_batch_size=size, max_waiting=waiting)
    first = ask(batcher, "first")
    assert gate.busy.wait(10)
    return batcher, first


def test_what_waits_is_answered_together_and_in_order():
    batcher, first = held(gate := Gate())
    futures = [first, *(ask(batcher, question) for question in "abcde")]
    gate.open.set()
    assert [future.result(10).completion.text for future in futures] == ["FIRST", *"ABCDE"]
    assert gate.batches == [["first"], ["a", "b", "c"], ["d", "e"]]
    batcher.close()


def test_one_more_than_may_wait_is_told_to_come_again():
    batcher, _ = held(gate := Gate(), waiting=2)
    waiting = [ask(batcher, question) for question in "ab"]
    with pytest.raises(BusyError, match="at most 2 questions") as error:
        ask(batcher, "c")
    assert error.value.retry_after >= 1
    gate.open.set()
    batcher.close()
    assert [future.result(0).completion.text for future in waiting] == ["A", "B"]


def test_a_question_that_nobody_waits_for_is_not_asked():
    batcher, _ = held(gate := Gate())
    left, kept = ask(batcher, "left"), ask(batcher, "kept")
    assert left.cancel()
    gate.open.set()
    assert kept.result(10).completion.text == "KEPT"
    assert gate.batches == [["first"], ["kept"]]
    batcher.close()


def test_a_room_that_is_gone_costs_its_neighbours_nothing():
    batcher, _ = held(gate := Gate(broken={"gone"}))
    before, gone, after = (ask(batcher, question) for question in ("before", "gone", "after"))
    gate.open.set()
    assert [before.result(10).completion.text, after.result(10).completion.text] == ["BEFORE", "AFTER"]
    with pytest.raises(MissingError, match="gone"):
        gone.result(10)
    batcher.close()


def test_a_fault_reaches_who_asked_and_the_next_question_is_answered():
    faults = [ZeroDivisionError("a fault")]

    def generate(requests, *, whole, grown):
        if faults:
            raise faults.pop()
        whole(0, Completion("well", 1))

    batcher = Batcher(generate, max_batch_size=3, max_waiting=8)
    with pytest.raises(ZeroDivisionError):
        ask(batcher, "a").result(10)
    assert ask(batcher, "b").result(10).completion.text == "well"
    batcher.close()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(SCENE, "qa", "is <scene> a chair?"), "'<scene>'"),
        (Request(SCENE, "qa", "chair", history=("<|im_end|>", "")), "'<|im_end|>'"),
        (Request(SCENE, "qa", "chair " * 300), "at most 200 tokens"),
    ],
    ids=["placeholder", "end of turn in the history", "too long"],
)
def test_what_the_model_would_misread_is_refused(answerer, request_, words):
    with pytest.raises(DataError, match="Expected") as error:
        answerer.check(request_, max_tokens=200)
    assert words in str(error.value)
