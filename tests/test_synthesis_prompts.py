"""What a language model is told: every task has its words, and no prompt its answer."""

from pathlib import Path

import pytest
from tiny_room import ask, room

from r1pipe.datasets import Pose
from r1pipe.params import Params
from r1pipe.synthesis.pictures import pictures
from r1pipe.synthesis.prompts import Prompts, prompt_version
from r1pipe.views.placement import num_candidates

ROOT = Path(__file__).parents[1]
TABLE = ask("what color is the table?", "brown")


@pytest.fixture(scope="module")
def scene():
    return room()


@pytest.mark.parametrize(
    ("sample", "told", "untold"),
    [
        (TABLE, ['"a wide table."', '"a small lamp."'], []),
        (
            ask("describe <obj_003>.", "a wide table.", task="captioning", object_ids=(3,)),
            ['"a small lamp."'],
            ["a wide"],
        ),
        (ask("the wide table.", "", task="grounding", object_ids=(3,)), ["Description: the wide"], ['"a ']),
        (
            ask("what is there?", "a lamp", task="situated", pose=Pose(position=(0, 1, 0), rotation=(0, 0, 0, 1))),
            ["stands at (0.00, 1.00, 0.00) and looks along (0.00, 1.00)"],
            [],
        ),
        (
            ask("and the lamp?", "it is white.", task="dialogue", history=("hello.", "hi!")),
            ["User: hello.\nAssistant: hi!", "next turn"],
            ["it is white"],
        ),
        (ask("make tea.", "1. go to the table.", task="planning"), ["numbered steps"], ["go to the table"]),
        (ask("describe the room.", "a small room.", task="description"), ["whole room", '"a wide'], ["a small room"]),
    ],
    ids=lambda value: value.task if hasattr(value, "task") else "",
)
def test_every_task_has_its_prompt_and_no_prompt_its_answer(scene, sample, told, untold):
    prompts = Prompts(lambda _: {3: "a wide table.", 4: "a small lamp."})
    text = prompts.first(sample, scene).text
    assert all(words in text for words in told)
    assert not any(words in text for words in untold)
    assert "$" not in text + prompts.second(sample, "so").text


def test_a_prompt_s_version_is_that_of_its_task_s_words():
    versions = {prompt_version(task) for task in ("qa", "situated", "grounding", "captioning", "planning")}
    assert len(versions) == 5


def test_pictures_are_views_evenly_spread_and_known_by_their_pixels(scene):
    render = Params.load(ROOT / "params.yaml").render
    three, again = pictures(scene, render, 3), pictures(scene, render, 3)
    assert [picture.png[:4] for picture in three] == [b"\x89PNG"] * 3
    assert len({picture.digest for picture in three}) == 3
    assert three == again
    assert len(pictures(scene, render, 100)) == num_candidates(render)
