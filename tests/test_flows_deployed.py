"""Nightly, retrain and synthesize-more, as a person starts them on a real server, and who is told when one fails.

The data stages are the real ones on few rooms; what trains and answers is `tiny_flows`. Minutes each.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

import pytest
from gemini_server import GeminiServer, error
from tiny_flows import DATA_STAGES, git, write_repository
from tiny_site import Site, await_true

from flows.commands import dvc, execute

pytestmark = pytest.mark.slow

KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def posts() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a server, and what was posted to it: type and body."""
    heard: list[tuple[str, str]] = []

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            heard.append((self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Hears) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", heard
        server.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory, posts) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("deployed")
    write_repository(folder / "repository", real=DATA_STAGES)
    site = Site.at(folder, R1PIPE_WEBHOOK=posts[0], GEMINI_API_KEY=KEY)
    with site.served(), site.staffed():
        yield site


@pytest.fixture
def clone(site, tmp_path) -> Callable[..., Path]:
    """What a person has who clones, composes these parameters, and takes a stage's results from the remote."""

    def take(stage: str, *overrides: str) -> Path:
        root = Path(mkdtemp(dir=tmp_path))
        git(root, "clone", "--quiet", str(site.repository), ".")
        (root / ".dvc/config.local").write_text(
            f"[core]\n    remote = bus\n['remote \"bus\"']\n    url = {site.folder}/remote\n"
        )
        subprocess.run([sys.executable, "-m", "tools.compose", *overrides], cwd=root, check=True)
        heard: list[str] = []
        execute(dvc("repro", "--pull", stage), root, heard.append)
        assert not [line for line in heard if line.startswith("Running stage")]
        return root

    return take


def test_nightly_promotes_the_first_model_and_then_only_a_better_one(site, tmp_path):
    there: set[str] = set()
    for steps, title, reason, tags in [
        (2000, "Promoted as `r1@v1.0.0`", "No model is promoted yet", {"r1@v1.0.0", "r1#production#1"}),
        (2020, "Not promoted", "acc_25 of grounding 50.5 against 50.0 of r1#production#1: +0.5", set()),
        (2600, "Promoted as `r1@v2.0.0`", "65.0 against 50.0 of r1#production#1", {"r1@v2.0.0", "r1#production#2"}),
    ]:
        found = site.run("nightly", overrides=[f"sft.max_steps={steps}"])
        assert found["state"]["type"] == "COMPLETED", found["state"]
        there |= tags
        assert set(git(site.repository, "tag").split()) == there
        assert title in site.artifact("promotion")
        assert reason in site.artifact("promotion")
    bus = ["--remote", "bus", "--remote-config", f"url={site.folder}/remote"]
    model = tmp_path / "model"
    execute(
        dvc("artifacts", "get", str(site.repository), "r1", "--stage", "production", *bus, "-o", str(model)),
        tmp_path,
        str,
    )
    assert (model / "model.txt").read_text() == "2600 steps\n"


def test_retrain_trains_anew_on_the_data_that_are_there_and_on_no_other(site):
    site.run("nightly")
    for _ in range(2):  # the second time on results that are up to date
        found = site.run("retrain", experiment="anew")
        assert found["state"]["type"] == "COMPLETED", found["state"]
        ended = site.stages(found["id"])
        assert ended["sft"] == "Completed"
        assert not {"collect", "prepare", "synthesize", "validate"} & set(ended)
    assert git(site.repository, "for-each-ref", "refs/exps/*/*/anew")
    found = site.run("retrain", overrides=["collect.rooms.train=21"])
    assert found["state"]["type"] == "FAILED"
    assert "read to be up to date, found collect, prepare stale." in found["state"]["message"]


def test_synthesize_more_adds_chains_of_thought_and_does_nothing_where_there_are_enough(site, clone):
    site.run("synthesize-more", rooms=20)
    before = thoughts(clone("validate"))
    found = site.run("synthesize-more", rooms=24, experiment="more")
    assert found["state"]["type"] == "COMPLETED", found["state"]
    more = thoughts(clone("validate", "collect.rooms.train=24"))
    assert before < more
    stages = len(site.runs_of("stage"))
    found = site.run("synthesize-more", rooms=24)
    assert found["state"]["type"] == "COMPLETED", found["state"]
    assert {name: how for name, how in site.stages(found["id"]).items() if name in DATA_STAGES} == dict.fromkeys(
        DATA_STAGES, "Skipped"
    )
    assert len(site.runs_of("stage")) == stages


def thoughts(root: Path) -> int:
    """Chains of thought that have passed the gate, to train on."""
    return len((root / "data/cot/validated/train.jsonl").read_text().splitlines())


def gemini_at(url: str, site: Site) -> list[str]:
    ledger = f"synthesize.gemini.ledger={site.folder}/ledger.sqlite"
    pace = "synthesize.gemini.requests_per_second=1000"
    return ["synthesize.teacher=gemini", f"synthesize.gemini.base_url={url}", ledger, pace]


def test_synthesize_more_asks_a_teacher_that_is_paid_for_the_new_rooms_alone(site):
    with GeminiServer() as gemini:
        asked = []
        for rooms in (20, 21):
            found = site.run("synthesize-more", rooms=rooms, overrides=gemini_at(gemini.url, site))
            assert found["state"]["type"] == "COMPLETED", found["state"]
            asked.append(len(gemini.asked))
    assert set(gemini.attempts.values()) == {1}
    assert 0 < asked[0] < asked[1] < 1.2 * asked[0]


def test_a_failure_is_told_once_in_the_stage_s_words_without_a_key(site, posts):
    _, heard = posts
    with GeminiServer(lambda _: error(403, "this key may not")) as gemini:
        found = site.run("synthesize-more", rooms=22, overrides=gemini_at(gemini.url, site))
    assert found["state"]["type"] == "FAILED"
    await_true(lambda: [body for _, body in heard if found["name"] in body])
    told = [post for post in heard if "403" in post[1]]
    assert len(told) == 1, told
    ((kind, body),) = told
    text = json.loads(body)["text"]
    assert kind == "application/json"
    assert text.startswith(f"synthesize-more {found['name']} Failed: ")
    assert "synthesize: Expected" in text
    assert "found 403 this key may not" in text
    assert text.endswith(f"/runs/flow-run/{found['id']}")
    assert KEY not in body
