"""The gate: each defect that is planted stops it, by its name and rows; clean data pass, with the same bytes each time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_gate import PARAMS, SPLIT, World, asked, draft, room

from r1pipe.datasets.manifest import Annotations, File, Manifest, Root
from r1pipe.datasets.subset import stable_subset
from r1pipe.errors import GateError, R1Error
from r1pipe.files import read_jsonl, sha256, write_json, write_jsonl, write_text
from r1pipe.geometry import Box
from r1pipe.response import compose
from r1pipe.scenes import Scene
from r1pipe.stages import validate
from r1pipe.stages.runner import run
from r1pipe.validation.checks import checks
from r1pipe.validation.defects import annotations_table, defect_counts
from r1pipe.validation.evidence import Extent
from r1pipe.validation.gate import run_checks
from r1pipe.validation.leaks import leaks
from r1pipe.validation.profile import Profile
from r1pipe.validation.samples import samples_table

DATA = Path(__file__).parents[2] / "shared" / "data"


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
    assert samples_table([sample], SPLIT, {}, asked=(), drafted=())["gives_away"].tolist() == [gives_away]


@pytest.mark.parametrize(
    ("object_ids", "boxes", "error"),
    [((0,), (0,), 0.0), ((0,), (1,), 1.5), ((44,), (0,), np.inf), ((0, 1), (0,), np.inf)],
    ids=["its box", "another's box", "no such object", "a box short"],
)
def test_a_target_box_is_compared_with_its_object(object_ids, boxes, error):
    scene = room("scene0000_00")
    boxes = tuple(scene.objects[i].box for i in boxes)
    sample = asked("what?", "table").model_copy(update={"object_ids": object_ids, "boxes": boxes})
    assert samples_table([sample], SPLIT, {scene.id: Extent.of(scene)}, asked=(), drafted=())["box_error"].tolist() == [
        error
    ]


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


@pytest.mark.parametrize("missing", [0, 2])
def test_samples_that_were_not_drawn_are_not_missed_and_those_that_were_are(world, missing):
    drawn = stable_subset({s.id: s.source for s in world.samples if s.split == "train"}, 5)
    section = world.params.synthesize.model_copy(update={"num_samples": 5})
    world.params = world.params.model_copy(update={"synthesize": section})
    world.drafts = [d for d in world.drafts if d.id in drawn][missing:]
    world.validate()
    told = json.loads((world.params.paths.metrics / "validate.json").read_text())
    assert told["warnings"].keys() == ({"sample_drafted"} if missing else set())
    assert (told["rejects"], told["refusals"]) == ({}, {})
    assert told["rows"] == {"train": 5 - missing, "val": 0}


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


def val_scene_in_train(world):
    world.samples[6] = world.samples[6].model_copy(update={"split": "train"})
    world.drafts[6] = draft(world.samples[6])


def val_mesh_under_a_train_id(world):
    world.meshes["scene0000_00"] = world.meshes["scene0011_00"]


def val_question_reworded(world):
    copied = world.samples[6].model_copy(
        update={"id": "scanqa-new", "question": "WHAT color, is the Chair", "split": "train"}
    )
    world.samples.append(copied)
    world.drafts.append(draft(copied))


def target_box_in_a_prompt(world):
    world.change(0, question="what color is the chair at (1.00, 1.00, 0.50)?")
    world.drafts[0] = draft(world.samples[0])


LEAKS = [
    {
        val_scene_in_train: "sample_split (samples: 1 of 12 rows: "
        "scanqa-scene0011_00-0 (a train sample of scene0011_00 in val))",
        rescan_in_val: "room_in_one_split (scenes: 2 of 4 rows: scene0000_00 (scene0000_00 in train and scene0000_01 in val); "
        "scene0000_01 (scene0000_00 in train and scene0000_01 in val))",
        target_box_in_a_prompt: "target_in_prompt (samples: 1 of 12 rows: "
        "scanqa-scene0000_00-0 (what color is the chair at (1.00, 1.00, 0.50)?))",
    },
    {
        val_mesh_under_a_train_id: "mesh_in_one_split (scenes: 2 of 4 rows: "
        "scene0000_00 (scene0000_00 in train and scene0011_00 in val); "
        "scene0011_00 (scene0000_00 in train and scene0011_00 in val))",
        val_question_reworded: "question_in_training (samples: 1 of 13 rows: "
        "scanqa-scene0011_00-0 (trained as scanqa-new))",
    },
]


@pytest.mark.parametrize("planted", LEAKS, ids=lambda planted: "-".join(leak.__name__ for leak in planted))
def test_leaks_stop_the_stage_with_status_1_and_name_their_rows(world, planted, monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the runner's process is pytest's here
    for leak in planted:
        leak(world)
    world.write()
    with pytest.raises(SystemExit) as stop:
        run(validate.main)
    sentence = capsys.readouterr().err
    assert stop.value.code == 1
    assert [named for named in planted.values() if named not in sentence] == []
    assert ".work/validate/data_docs/index.html" in sentence


@pytest.mark.slow
def test_leaks_stop_dvc_repro_before_what_comes_after(world):
    for leak in (val_scene_in_train, rescan_in_val, val_question_reworded, target_box_in_a_prompt):
        leak(world)
    world.write()
    stages = {
        "validate": {"cmd": f"{sys.executable} -m r1pipe.stages.validate"},
        "sft": {"cmd": "touch trained", "deps": [str(world.params.paths.cot)]},
    }
    stages["validate"]["outs"] = [str(world.params.paths.cot)]
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc = [sys.executable, "-m", "dvc"]
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([*dvc, "init", "--no-scm", "-q"], check=True, env=environment)
    ended = subprocess.run([*dvc, "repro"], check=False, env=environment, capture_output=True, text=True)
    assert ended.returncode != 0
    for name in ("sample_split", "room_in_one_split", "question_in_training", "target_in_prompt"):
        assert re.search(rf"{name} \(\w+: \d+ of \d+ rows: (scene|scan)", ended.stderr)
    assert not Path("trained").exists()


def test_drift_from_a_stored_profile_warns_and_does_not_stop(world):
    world.write()
    validate.profile(world.params, Path("profile.json"))
    world.set(profile=Path("profile.json"))
    world.samples = [s.model_copy(update={"question": f"please tell me, {s.question}"}) for s in world.samples]
    world.drafts = [draft(s) for s in world.samples if s.split != "test"]
    world.validate()
    metrics = json.loads((world.params.paths.metrics / "validate.json").read_text())
    assert list(metrics["warnings"]) == ["drift_samples_question_words"]
    assert metrics["drift"]["divergence"]["samples, task"] == 0.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "Expected a JSON file at profile.json, found none"), ('{"distributions": [{"table": "scenes"}]}', "distributions.0.column")],
)  # fmt: skip
def test_a_profile_that_cannot_be_read_is_named(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("profile.json").write_text(text)
    with pytest.raises(R1Error, match=re.escape(sentence)):
        Profile.load(Path("profile.json"))


@pytest.mark.parametrize(
    ("source", "name", "rows", "found"),
    [
        ("threedllm", "3d_llm_scene_description_train.json", [("scene0000_00", "a"), ("scene0000_00", "a,")], {"asked_before": 1, "trailing_comma": 1}),
        ("threedllm", "3d_llm_scene_description_val.json", [("scene0000_00", "a"), ("scene0011_00", "a")], {"other_split": 1}),
        ("scanqa", "ScanQA_v1.0_train.json", [("scene0000_00", "a"), ("scene0000_00", "a")], {"repeated": 1, "asked_before": 1}),
        ("scene30k", "released.jsonl", [("scene0000_00", "a"), ("scene0011_00", "a"), ("scene0707_00", "a")], {"other_split": 2}),
        ("scene30k", "validation.jsonl", [("scene0000_00", "a"), ("scene0011_00", "a")], {"other_split": 1}),
        ("sqa3d", "v1_balanced_questions_train_scannetv2.json", [("scene0000_00", "a"), ("scene0000_00", "b")], None),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)  # fmt: skip
def test_defects_are_counted_by_file(tmp_path, source, name, rows, found):
    for split in ("train", "val", "test"):
        listed = [scene_id for scene_id, of in SPLIT.items() if of == split]
        write_text(tmp_path / "meta" / f"scannetv2_{split}.txt", "\n".join(listed))
    values = [{"scene_id": scene_id, "question": "what?", "answers": [answer]} for scene_id, answer in rows]
    write_jsonl(tmp_path / name, values) if name.endswith("l") else write_json(tmp_path / name, values)
    files = (File(path=name, size=1, sha256=""),)
    root = Root(
        kind="scannet", path=f"{tmp_path}", meta=(), scenes=(), annotations=(Annotations(source=source, files=files),)
    )
    assert defect_counts(annotations_table(Manifest(roots=(root,)))) == ({} if found is None else {name: found})


THREEDLLM = {
    "3d_llm_embodied_dialogue_filtered_val.json": {"repeated": 16, "asked_before": 97, "other_split": 1222},
    "3d_llm_embodied_question_answer_val.json": {"asked_before": 67, "trailing_comma": 1158, "other_split": 1938},
    "3d_llm_scene_description_val.json": {"asked_before": 60, "other_split": 121},
}
"""Sixty of 61 scenes are described twice; all 1,222, 1,938 and 121 rows are about scenes of ScanNet's train list."""


@pytest.mark.skipif(not (DATA / "threedllm").is_dir(), reason="needs the 3D-LLM files in shared/data")
def test_the_gate_counts_each_defect_of_the_published_3d_llm_files(tmp_path):
    (tmp_path / "meta").symlink_to(DATA / "scannet" / "meta")
    paths = sorted((DATA / "threedllm").glob("*.json"))
    found = tuple(File(path=f"{path}", size=path.stat().st_size, sha256=sha256(path)) for path in paths)
    annotations = (Annotations(source="threedllm", files=found),)
    root = Root(kind="scannet", path=f"{tmp_path}", meta=(), scenes=(), annotations=annotations)
    table = annotations_table(Manifest(roots=(root,)))
    assert defect_counts(table) == THREEDLLM
    ours = [check for check in checks(PARAMS.validate_, (), ()) if check.table == "annotations"]
    outcomes = run_checks(ours, {"annotations": table}, tmp_path / "data_docs")
    assert {o.check.column: o.num_unexpected for o in outcomes} == {
        "repeated": 16, "asked_before": 224, "trailing_comma": 1158, "other_split": 3281,
    }  # fmt: skip
    assert all(o.check.severity == "warning" and not o.passed for o in outcomes)
