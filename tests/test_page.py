"""The page, in a browser: a question is asked, reasoning and answer come, and boxes are seen in the room."""

import io
import shutil
import threading
import time

import numpy as np
import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from r1pipe.serving import api, page
from r1pipe.serving.figures import COLOURS
from tests.tiny_serving import SCENE, scene, served_model

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
    expect(tab.get_by_label("Question")).to_have_value("what color is the chair?", timeout=60_000)
    yield tab
    tab.close()


def pixels(tab, colour):
    """How many pixels of the room have nearly this colour."""
    shot = Image.open(io.BytesIO(tab.locator("#r1-room .js-plotly-plot").screenshot())).convert("RGB")
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(np.asarray(shot, int) - wanted).max(axis=-1) < 12).sum())
