"""A run is priced before it asks anybody, and what the ledger holds costs nothing."""

import json
import os
from itertools import cycle, islice

import pytest
import yaml
from gemini_server import GeminiServer, good
from test_synthesis_resume import prepare
from tiny_room import ask, room
from typer.testing import CliRunner

from r1pipe.cli import app
from r1pipe.errors import ParamsError
from r1pipe.params import Params
from r1pipe.scenes import Scene, SceneObject
from r1pipe.stages import synthesize
from r1pipe.stages.synthesize import price
from r1pipe.synthesis.estimate import estimate
from r1pipe.synthesis.prompts import Prompts
from r1pipe.synthesis.service import KEY_VARIABLE
from tools.compose import composed

NUM_SAMPLES = 28


@pytest.fixture
def place(tmp_path, monkeypatch):
    prepare(tmp_path, "http://127.0.0.1:9", NUM_SAMPLES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(folder, *, num_samples=None, **gemini):
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["synthesize"] |= {"num_samples": num_samples}
    values["synthesize"]["gemini"] |= gemini
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return Params.load()


def test_a_dry_run_counts_requests_tokens_money_and_minutes(place):
    params = changed(place, requests_per_second=2.0)
    seen = price(params)
    assert (seen.samples, seen.references, seen.kept, seen.requests) == (NUM_SAMPLES, 0, 0, 2 * NUM_SAMPLES)
    assert seen.output_tokens_at_most == 2 * NUM_SAMPLES * 4096
    assert seen.dollars == pytest.approx((seen.prompt_tokens * 1.25 + seen.output_tokens * 10) / 1e6)
    assert seen.minutes == pytest.approx(2 * NUM_SAMPLES / 2 / 60)
    assert price(changed(place, batch=True)).dollars == pytest.approx(seen.dollars / 2)
    assert not (place / "ledger").exists()


def test_tasks_that_do_not_reason_cost_nothing(place):
    params = changed(place)
    values = params.model_dump(mode="json", by_alias=True) | {"think": dict.fromkeys(params.think.model_dump(), False)}
    seen = price(Params.model_validate(values))
    assert (seen.references, seen.requests, seen.dollars) == (NUM_SAMPLES, 0, 0)


def test_after_a_run_nothing_is_left_to_pay(place, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with GeminiServer(good) as server:
        synthesize.main(changed(place, base_url=server.url))
    seen = price(changed(place))
    assert (seen.kept, seen.requests, seen.dollars) == (2 * NUM_SAMPLES, 0, 0)
    # Of another model the ledger knows nothing.
    assert price(changed(place, model="gemini-2.5-flash")).requests == 2 * NUM_SAMPLES
    # Of this one it knows what answers take.
    assert price(changed(place, model="gemini-2.5-pro", temperature=0.1)).output_tokens == 2 * NUM_SAMPLES * 7


def test_the_command_prints_a_table_or_json(place):
    table = CliRunner().invoke(app, ["synthesize", "--dry-run"], env=os.environ | {"COLUMNS": "120"})
    assert table.exit_code == 0, table.stderr
    assert "gemini/gemini-2.5-pro" in table.stdout
    assert "dollars" in table.stdout
    printed = CliRunner().invoke(app, ["synthesize", "--dry-run", "--json"])
    assert json.loads(printed.stdout)["requests"] == 2 * NUM_SAMPLES


def test_a_model_without_a_price_is_named(place):
    with pytest.raises(Exception, match=r"model gemini-9 needs its price .*gemini-2\.5-flash"):
        changed(place, model="gemini-9")


def test_a_dry_run_prices_the_samples_that_are_drawn(place):
    params = changed(place, num_samples=10)
    seen = price(params)
    assert (seen.samples, seen.requests) == (11, 22)  # one of val
    assert seen.dollars < price(changed(place, num_samples=20)).dollars


def test_of_more_samples_only_the_new_ones_are_asked_and_all_in_the_old_order(place, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    drafted = {}
    with GeminiServer(good) as server:
        for number in (10, 20, None):
            # What people said of a room's objects is in its prompts, whoever of them is drawn.
            assert price(changed(place, num_samples=number)).kept == 2 * len(
                drafted.get(10 if number == 20 else 20, ())
            )
            synthesize.main(changed(place, num_samples=number, base_url=server.url))
            drafts = map(json.loads, (place / "data/cot/drafts.jsonl").read_text().splitlines())
            drafted[number] = [row["id"] for row in drafts]
    assert list(map(len, drafted.values())) == [11, 22, NUM_SAMPLES]
    for fewer, more in ((10, 20), (20, None)):
        assert [name for name in drafted[more] if name in drafted[fewer]] == drafted[fewer]


def test_a_number_of_samples_too_small_for_a_tenth_in_val_is_refused(place):
    with pytest.raises(ParamsError, match=r"synthesize\.num_samples: input should be greater than or equal to 10"):
        changed(place, num_samples=9)


def test_the_budget_of_the_paper_pays_its_samples_where_each_reasons_in_a_full_room():
    values = Params.model_validate(composed(["scale=paper"]))
    section = values.synthesize
    objects = tuple(SceneObject(i, *one[1:]) for i, one in enumerate(islice(cycle(room().objects), 67)))
    scene = room()
    full = Scene(scene.id, scene.xyz, scene.rgb, scene.instance, objects)
    said = dict.fromkeys(
        range(67), "a brown wooden thing. it is to the left of the desk and in front of the window, by the wall."
    )
    one = estimate(
        [ask("what color is the table?", "brown")],
        lambda _: full,
        Prompts(lambda _: said),
        section.gemini,
        values.think,
    )
    num_samples = section.num_samples + section.most("val")
    assert num_samples == 33_000
    assert one.requests == 2
    assert num_samples * one.dollars < section.gemini.budget < 1.5 * num_samples * one.dollars
