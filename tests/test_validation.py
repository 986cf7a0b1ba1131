"""The gate: each defect that is planted stops it, by its name; clean data pass, with the same bytes each time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_gate import SPLIT, World, asked, draft, room

from r1pipe.errors import GateError
from r1pipe.files import read_jsonl
from r1pipe.geometry import Box
from r1pipe.response import compose
from r1pipe.scenes import Scene
from r1pipe.validation.evidence import Extent
from r1pipe.validation.leaks import leaks
from r1pipe.validation.samples import samples_table


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def test_clean_data_pass_and_give_the_same_bytes_twice(world):
    world.validate()
    paths = world.params.paths
    assert [row["id"] for row in read_jsonl(paths.cot / "val.jsonl")] == [s.id for s in world.samples[6:9]]
    metrics = json.loads((paths.metrics / "validate.json").read_text())
    assert metrics["expectations"]["critical"]["failed"] == metrics["expectations"]["warning"]["failed"] == 0
    assert metrics["rows"] == {"train": 6, "val": 3}
    first = contents(paths.data_docs)
    assert Path("index.html") in first
    assert not any(b"great-expectations-web-assets" in page for page in first.values())
    shutil.rmtree(paths.data_docs)
    world.validate()
    assert contents(paths.data_docs) == first


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rescan_in_val(world):
    world.split["scene0000_01"] = "val"
    for i in (3, 4, 5):
        world.change(i, split="val")
    world.drafts = [draft(s) for s in world.samples if s.split != "test"]


def box_in_millimetres(world):
    spoil_box(world, "scene0011_00", 1000.0)


def box_too_large(world):
    spoil_box(world, "scene0000_00", 1.4)


def spoil_box(world, scene_id, factor):
    scene = world.scenes[scene_id]
    bed = scene.objects[3]
    boxed = bed._replace(box=Box(*(factor * number for number in bed.box)))
    world.scenes[scene_id] = Scene(scene_id, scene.xyz, scene.rgb, scene.instance, (*scene.objects[:3], boxed))


def cloud_too_wide(world):
    scene = world.scenes["scene0707_00"]
    world.scenes[scene.id] = Scene(scene.id, scene.xyz * 20, scene.rgb, scene.instance, scene.objects)


def duplicate_id(world):
    world.change(2, id=world.samples[0].id)


def unaligned_target(world):
    world.change(0, boxes=(Box(1.0, 2.5, 0.4, 0.6, 1.0, 0.8),))


def identifier_in_prompt(world):
    world.change(1, question="<obj_001> beside the chair")


def sample_of_another_split(world):
    world.change(3, split="val")


def stale_draft(world):
    world.change(0, question="which color is the chair?")


def draft_of_nothing(world):
    world.drafts[2] = world.drafts[2].model_copy(update={"id": "scanqa-gone"})


def unknown_object(world):
    cot = compose("chair <obj_000> <obj_099> red", "red")
    world.drafts[0] = world.drafts[0].model_copy(update={"cot": cot})


def no_draft_passes(world):
    world.drafts = [d.model_copy(update={"cot": "red"}) for d in world.drafts]


def unprepared_scene(world):
    del world.scenes["scene0707_00"]


@pytest.mark.parametrize(
    ("defects", "names"),
    [
        (
            [rescan_in_val, no_draft_passes],
            {"room_in_one_split", "layout_in_one_split", "question_in_training", "some_texts"},
        ),
        (
            [box_in_millimetres, cloud_too_wide, box_too_large, stale_draft, unknown_object],
            {"box_in_metres", "scene_in_metres", "box_inside_scene", "draft_of_sample", "known_objects"},
        ),
        (
            [duplicate_id, unaligned_target, identifier_in_prompt, draft_of_nothing, unprepared_scene],
            {"duplicate_id", "target_is_annotated", "target_in_prompt", "draft_of_sample", "scene_prepared"},
        ),
        ([sample_of_another_split], {"sample_split", "draft_of_sample", "question_in_training"}),
    ],
    ids=lambda value: "-".join(spoil.__name__ for spoil in value) if isinstance(value, list) else "",
)
def test_planted_defects_stop_the_gate_by_their_names_and_by_no_other(world, defects, names):
    for spoil in defects:
        spoil(world)
    with pytest.raises(GateError, match=r"\.work/validate/data_docs/index\.html\.$") as stop:
        world.validate()
    assert set(re.findall(r"(\w+) \(\w+: ", str(stop.value))) == names
    assert "\n" not in str(stop.value)
    assert Path(".work/validate/data_docs/index.html").is_file()
    assert not world.params.paths.cot.exists()
    assert not world.params.paths.data_docs.exists()


@pytest.mark.parametrize(
    ("task", "question", "gives_away"),
    [
        ("grounding", "<obj_001> beside the chair", True),
        ("grounding", "the table beside the chair", False),
        ("captioning", "describe <obj_001>.", False),
        ("qa", "what is at <box>1,1,0.5,0.5,0.5,1</box>?", True),
        ("qa", "what is at (2.5, 1.00, 0.4)?", True),
        ("qa", "is the thing of 1.0 x 0.6 x 0.8 m red?", True),
        ("qa", "what is 2.5 m high and 1.0 m wide, 0.9 m from the door?", False),
    ],
)
def test_a_prompt_gives_away_its_target_by_a_box_or_by_the_identifier_it_asks_for(task, question, gives_away):
    box = Box(2.5, 1.0, 0.4, 1.0, 0.6, 0.8)
    sample = asked(question, "table", 1).model_copy(update={"task": task, "boxes": (box,)})
    assert samples_table([sample], SPLIT, {}, set())["gives_away"].tolist() == [gives_away]


@pytest.mark.parametrize(
    ("object_ids", "boxes", "error"),
    [((0,), (0,), 0.0), ((0,), (1,), 1.5), ((44,), (0,), np.inf), ((0, 1), (0,), np.inf)],
    ids=["its box", "another's box", "no such object", "a box short"],
)
def test_a_target_box_is_compared_with_its_object(object_ids, boxes, error):
    scene = room("scene0000_00")
    boxes = tuple(scene.objects[i].box for i in boxes)
    sample = asked("what?", "table").model_copy(update={"object_ids": object_ids, "boxes": boxes})
    assert samples_table([sample], SPLIT, {scene.id: Extent.of(scene)}, set())["box_error"].tolist() == [error]


@pytest.mark.parametrize(
    ("scene_id", "question", "likeness"),
    [
        ("scene0000_01", "What color is the chair?", 1.0),
        ("scene0000_01", "WHAT color, is the CHAIR", 1.0),
        ("scene0000_01", "what color is the red chair?", 5 / 6),
        ("scene0000_01", "how many beds are there", 0.0),
        ("scene0011_00", "what color is the chair?", None),
    ],
    ids=["word for word", "by case and punctuation", "nearly so", "another question", "another room"],
)
def test_leaks_are_likenesses_within_a_physical_room(scene_id, question, likeness):
    trained = asked("what color is the chair?", "red")
    held_out = trained.model_copy(update={"id": "b", "scene_id": scene_id, "question": question, "split": "test"})
    found = leaks([trained, held_out]).get("b")
    assert found == (None if likeness is None else (pytest.approx(likeness), "a"))


def test_many_rejects_warn_but_do_not_stop(world, caplog):
    for i in (0, 2, 3, 5):
        world.drafts[i] = world.drafts[i].model_copy(update={"cot": "red", "fault": "format"})
    world.validate()
    assert (
        "reject_rate: The filters keep enough drafts. Found 4 of 9 rows: scanqa-scene0000_00-0; sqa3d-" in caplog.text
    )
    metrics = json.loads((world.params.paths.metrics / "validate.json").read_text())
    assert metrics["expectations"]["warning"]["failed"] == 1
    assert metrics["rejects"] == {"format": 4}
    assert list(metrics["warnings"]) == ["reject_rate"]
