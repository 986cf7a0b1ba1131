"""The page: what it says and draws, and in a browser: a question is asked, and boxes are seen in the room."""

import io
import re
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from tiny_serving import QUESTIONS, SCENE, scene, served_model

from r1pipe.geometry import Box
from r1pipe.params.section import Task
from r1pipe.scenes.graph import ahead
from r1pipe.serving import api, figures, handlers, markup, page
from r1pipe.serving.examples import examples
from r1pipe.serving.figures import COLOURS

PATIENCE_MS = 120_000
"""A loaded machine is slow; nothing waits longer than it must."""

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BOX = Box(1, 1, 1, 1, 2, 0.5)
STAND = (1.0, 2.0, 90.0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_model(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def happens(served):
    return handlers.Handlers(lambda: served)


def test_a_box_is_drawn_with_twelve_edges_and_its_name():
    _, edges, names = figures.room(scene(), [figures.Mark("chair 1", BOX, "answer")]).data
    assert np.isfinite(edges.x).sum() == 24
    assert np.nanmax(edges.z) == BOX.high[2]
    assert (names.text, names.z) == (("chair 1",), (BOX.high[2],))


def test_the_key_below_the_room_has_the_colours_in_it():
    css = Path(page.__file__).with_name("page.css").read_text()
    assert all(f".r1-is-{role} {{ --r1: {colour}; }}" in css for role, colour in COLOURS.items())


def test_a_photograph_shows_the_box_where_its_camera_sees_it(served):
    room = served.room(SCENE)
    cameras = room.views.cameras.take(np.arange(len(room.views.cameras))).fitted((80, 60))
    plain, marked = (
        np.array(figures.photographs(room.scene, cameras, marks, radius=1))
        for marks in ((), [figures.Mark("chair 1", BOX, "answer")])
    )
    changed = (plain != marked).any(axis=-1)
    assert changed.any()
    assert set(map(tuple, marked[changed])) == {(0xD6, 0x33, 0x6C)}
    assert not (plain == 0).all(axis=-1).any(), "what no point covers is not black"


def test_examples_name_what_stands_in_the_room_once(served):
    features = replace(served.features(SCENE), object_labels=("chair", "bed", "chair", "lamp", "desk"))
    assert examples("grounding", features) == ["the bed.", "the lamp."]
    assert examples("captioning", features) == ["describe <obj_001>.", "describe <obj_003>."]
    assert all(examples(task, features) for task in get_args(Task))
    nothing = replace(features, object_labels=())
    assert (examples("qa", nothing), examples("description", nothing)) == ([], ["describe the room."])


def test_what_a_model_says_is_escaped_and_known_objects_are_called_by_their_class():
    said = markup.partial("<think><b>x</b> <obj_001> <obj_099>", (), {"<obj_001>": "bed 1"})
    assert "&lt;b&gt;x&lt;/b&gt;" in said
    assert ">bed 1</span>" in said
    assert "&lt;obj_099&gt;" in said


def test_a_situated_question_is_asked_from_where_one_stands(served, happens):
    *_, shown = happens.ask(SCENE, "situated", QUESTIONS[0], handlers.Shown(), False, *STAND)
    assert ahead(handlers.Stand(*STAND).pose().rotation) == pytest.approx((-1, 0))
    assert "you" in [trace.name for trace in shown[2].data]
    assert handlers._question(SCENE, "situated", "what?", (), handlers.Stand(*STAND)).pose.position == (1, 2, 0)
    assert handlers._question(SCENE, "qa", "what?", (), handlers.Stand(*STAND)).pose is None


def test_a_conversation_is_remembered_until_it_is_started_anew(happens):
    shown = handlers.Shown()
    for question in QUESTIONS[:2]:
        *_, (shown, *_) = happens.ask(SCENE, "dialogue", question, shown, False, *STAND)
    assert [turn.question for turn in shown.turns] == QUESTIONS[:2]
    asked = handlers._question(SCENE, "dialogue", "why?", shown.turns, handlers.Stand(*STAND))
    assert asked.history == tuple(text for turn in shown.turns for text in turn)
    assert all("red <obj_001>" in turn.answer for turn in shown.turns)
    assert happens.restart()[0].turns == ()


@pytest.mark.parametrize(
    ("scene_id", "question", "words"),
    [(SCENE, " ", "question"), (None, "what?", "known scenes"), (SCENE, "<obj_099>?", "&lt;obj_099&gt;")],
    ids=["no question", "no room", "unknown object"],
)
def test_a_refusal_stands_where_the_answer_would(happens, scene_id, question, words):
    *_, (_, said, *_) = happens.ask(scene_id, "qa", question, handlers.Shown(), False, *STAND)
    assert 'role="alert"' in said
    assert words in said


@pytest.fixture(scope="module")
def url(served):
    """The address of a page over the tiny served model."""
    app = api.create_app()
    page.mount(app, lambda: api.attached(app))
    api.attach(app, served)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium, the system's package `chromium`")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        yield playwright.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture
def tab(request, browser, url):
    """A page opened at a width, with the requests that it made."""
    tab = browser.new_page(viewport={"width": request.param, "height": 844})
    tab.set_default_timeout(PATIENCE_MS)
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(f"{url}/ui/")
    expect(tab.get_by_label("Question")).to_have_value("what color is the chair?")
    expect(tab.locator("#r1-room canvas").first).to_be_visible()
    yield tab
    tab.close()


def pixels(tab):
    """How many pixels of the room have nearly the colour of each role."""
    tab.wait_for_timeout(500)  # for what was just drawn
    shot = Image.open(io.BytesIO(tab.locator("#r1-room .js-plotly-plot").screenshot())).convert("RGB")
    seen = {}
    for role, colour in COLOURS.items():
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        seen[role] = int((np.abs(np.asarray(shot, int) - wanted).max(axis=-1) < 12).sum())
    return seen


@pytest.mark.parametrize("tab", [1280], indirect=True)
def test_a_question_is_answered_with_boxes_in_the_room_and_the_views_it_rests_on(tab, url):
    before = pixels(tab)
    tab.get_by_role("button", name="Ask").click()
    expect(tab.locator(".r1-said")).to_have_text("red chair 1")
    expect(tab.locator(".r1-thinking")).to_have_text("the chair chair 2 is red.")
    expect(tab.locator("#r1-chosen figure")).to_have_count(2)
    assert tab.locator("#r1-chosen figure").first.locator("meter").count() == 4
    assert tab.locator("#r1-chosen img").first.evaluate("image => image.naturalWidth") == handlers.LARGE[0]
    assert all(pixels(tab)[role] > before[role] + 200 for role in ("answer", "named")), (before, pixels(tab))
    assert [address for address in tab.asked if not address.startswith((url, "data:", "blob:"))] == []


@pytest.mark.parametrize("tab", [390], indirect=True)
def test_a_phone_shows_the_whole_page_and_a_refusal_is_a_sentence(tab, tmp_path):
    good, bad = tmp_path / "good.npz", tmp_path / "bad<b>.npz"
    np.savez(good, xyz=scene().xyz, rgb=scene().rgb)
    bad.write_bytes(b"zip?")
    upload = tab.locator("input[type=file]")
    upload.set_input_files(bad)
    expect(tab.get_by_text(re.compile(r"Expected a NumPy archive in bad.*\.npz"))).to_be_visible(timeout=20_000)
    tab.get_by_label("Question").fill("")
    upload.set_input_files(good)
    expect(tab.get_by_label("Room")).to_have_value(re.compile("^scan-"))
    expect(tab.get_by_label("Question")).to_have_value("what color is the chair?")  # entering a room ends with it
    tab.get_by_label("Question").fill("describe <obj_099>.")
    tab.get_by_label("Question").press("Enter")
    expect(tab.get_by_role("alert")).to_contain_text("in the question, found <obj_099>.")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
