"""The page, in a browser: a question is asked, reasoning and answer come, and boxes are seen in the room."""

import io
import re
import shutil
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from r1pipe.serving import api, handlers, page
from r1pipe.serving.figures import COLOURS
from tests.tiny_serving import scene, served_model

expect.set_options(timeout=30_000)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (the system's package `chromium`)")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a page over the tiny served model."""
    app = api.create_app()
    page.mount(app, lambda: api.attached(app))
    api.attach(app, served_model(tmp_path_factory.mktemp("bundle")))
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
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture
def tab(browser, url, request):
    """A page opened at a width, with the requests that it made."""
    tab = browser.new_page(viewport={"width": request.param, "height": 844})
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(f"{url}/ui/")
    expect(tab.get_by_label("Question")).to_have_value("what color is the chair?")
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
    upload.set_input_files(good)
    expect(tab.get_by_label("Room")).to_have_value(re.compile("^scan-"))
    tab.get_by_label("Question").fill("describe <obj_099>.")
    tab.get_by_label("Question").press("Enter")
    expect(tab.get_by_role("alert")).to_contain_text("in the question, found <obj_099>.")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
