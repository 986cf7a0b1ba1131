import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_scans import ABSENT, ALIGNMENT, IDS, OBJECTS, corners, write, write_root

from r1pipe.datasets import (
    multi3drefer,
    nr3d,
    scannet_questions,
    scanqa,
    scanrefer,
    scene30k,
    sqa3d,
    threedllm,
)
from r1pipe.datasets.catalog import Catalog, Room
from r1pipe.datasets.frames import frame_files, frame_numbers, read_frames
from r1pipe.datasets.labels import OTHERS, LabelMap
from r1pipe.datasets.manifest import Manifest, build, check_rooms, read_splits, room_of
from r1pipe.datasets.preparation import read_samples, write_samples, write_scenes
from r1pipe.datasets.sample import Sample
from r1pipe.datasets.scannet import read_scan
from r1pipe.errors import DataError
from r1pipe.files import read_models
from r1pipe.geometry import Box, transform
from r1pipe.scenes.graph import ahead
from r1pipe.scenes.scene import Scene
from r1pipe.scenes.thin import thin

TRAIN, VAL = IDS["train"], IDS["val"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("scannet"))


@pytest.fixture(scope="module")
def labels(root):
    return LabelMap.load(root / "meta" / "scannetv2-labels.combined.tsv")


@pytest.fixture(scope="module")
def catalog(root, labels):
    rooms = {i: Room.of(read_scan(root / "scans", i, labels), split) for split, i in IDS.items()}
    return Catalog(read_splits(root / "meta"), rooms, labels)


def test_a_scene_is_aligned_and_its_boxes_hold_every_vertex(root, labels):
    scene = read_scan(root / "scans", TRAIN, labels).scene
    assert [o.label for o in scene.objects] == ["floor", "chair", "chair", "table"]
    assert [o.nyu40 for o in scene.objects] == [2, 5, 5, 7]
    for index, (_, low, size) in enumerate(OBJECTS):
        xyz = transform(corners(low, size), np.array(ALIGNMENT))
        assert np.allclose(scene.objects[index].box, Box.around(xyz), atol=1e-6)
        assert np.allclose(scene.xyz[scene.instance == index], xyz, atol=1e-6)
    assert (scene.instance == -1).sum() == 1


def test_a_test_scan_without_segments_has_no_objects_and_stays_as_scanned(tmp_path, labels):
    folder = write_root(tmp_path) / "scans" / IDS["test"]
    folder.joinpath(f"{IDS['test']}.aggregation.json").unlink()
    folder.joinpath(f"{IDS['test']}.txt").write_text("colorHeight = 968\n")
    manifest = build([("scannet", tmp_path)], frames_per_room=0, workers=1)
    assert {i.scene.id: i.scene.annotated for i in manifest.locations()}[IDS["test"]] is False
    scan = read_scan(tmp_path / "scans", IDS["test"], labels, annotated=False)
    assert scan.scene.objects == () and (scan.alignment == np.eye(4)).all()


@pytest.mark.parametrize(
    ("label", "nyu40", "cls"),
    [("office chair", 5, 2), ("book_shelf", 10, 7), ("television", 25, OTHERS), ("gizmo", 0, OTHERS)],
    ids=["raw", "underscore", "class name", "unknown"],
)
def test_labels_map_as_published(labels, label, nyu40, cls):
    assert (labels.nyu40(label), labels.scanrefer_class(label)) == (nyu40, cls)


def test_thinning_keeps_one_point_a_cell_and_every_object():
    xyz = np.zeros((6, 3), np.float32)
    xyz[3:, 0] = 0.5
    instance = np.array([0, 0, 1, 0, 0, -1], np.int32)
    scene = Scene("s", xyz, np.zeros((6, 3), np.uint8), instance, ())
    assert thin(scene, 0.1).instance.tolist() == [1, 0]


def test_scanrefer_gives_grounding_and_scan2cap_captions(tmp_path, catalog):
    def row(object_id, name, ann_id, text, scene_id=TRAIN):
        return {"scene_id": scene_id, "object_id": str(object_id), "object_name": name, "ann_id": str(ann_id),
                "description": text, "token": text.split()}  # fmt: skip

    rows = [row(1, "office_chair", 0, "the chair by the wall"), row(1, "office_chair", 1, "a black chair"),
            row(3, "table", 0, "the table "), row(1, "chair", 0, "unseen", ABSENT["train"])]  # fmt: skip
    path = write(tmp_path / "ScanRefer_filtered_train.json", rows)
    samples = list(scanrefer.read([path], catalog))
    assert [(s.task, s.source) for s in samples].count(("grounding", "scanrefer")) == 3
    # The other chair is in the scene, but nobody described it: the official rule calls this one unique.
    assert {s.tags for s in samples} == {("unique",)}
    caption = next(s for s in samples if s.task == "captioning" and s.object_ids == (1,))
    assert caption.question == "describe <obj_001>." and caption.answers == ("the chair by the wall", "a black chair")
    assert caption.boxes == (catalog.rooms[TRAIN].objects[1].box,) and caption.id == f"scan2cap-{TRAIN}-1"
    assert catalog.absent[ABSENT["train"]] == 1
    two = list(scanrefer.read([write(tmp_path / "b.json", [rows[0], row(2, "chair", 0, "x")])], catalog))
    assert {s.tags for s in two} == {("multiple",)}


NR3D = "assignmentid,stimulus_id,utterance,tokens,scan_id,target_id,mentions_target_class,instance_type,dataset\n"


def test_nr3d_tags_and_filter(tmp_path, catalog):
    text = NR3D + (
        f"7,{TRAIN}-chair-2-1-2,The chair on the left,\"['the', 'chair', 'left']\",{TRAIN},1,True,chair,nr3d\n"
        f"8,{VAL}-chair-3-2-1-3,The Left chair,\"['the', 'Left', 'chair']\",{VAL},2,True,chair,nr3d\n"
        f"9,{VAL}-chair-2-2-1,that one,\"['that', 'one']\",{VAL},2,False,chair,nr3d\n"
    )
    easy, hard = nr3d.read([write(tmp_path / "nr3d.csv", text)], catalog)
    assert (easy.tags, easy.split, easy.id) == (("easy", "view-dependent"), "train", f"nr3d-{TRAIN}-7")
    assert (hard.tags, hard.split) == (("hard",), "val")


def test_sr3d_rows_have_no_id_of_their_own(tmp_path, catalog):
    text = NR3D.replace("assignmentid,", "") + f"{TRAIN}-chair-2-1-2,a chair,\"['a']\",{TRAIN},1,True,chair,sr3d\n"
    (sample,) = nr3d.read([write(tmp_path / "sr3d.csv", text)], catalog)
    assert (sample.id, sample.source) == (f"sr3d-{TRAIN}-0", "sr3d")


def test_multi3drefer_reads_none_one_and_several(tmp_path, catalog):
    rows = [{"scene_id": VAL, "ann_id": i, "object_ids": ids, "object_name": "chair", "description": "chairs",
             "eval_type": kind} for i, (ids, kind) in enumerate([([], "zt_w_d"), ([3], "st_wo_d"), ([1, 2], "mt")])]  # fmt: skip
    none, one, two = multi3drefer.read([write(tmp_path / "multi3drefer_val.json", rows)], catalog)
    assert (none.answers, none.boxes, none.tags) == (("none",), (), ("zt_w_d",))
    assert one.answers == () and one.object_ids == (3,)
    assert two.object_ids == (1, 2) and len(two.boxes) == 2


def test_scanqa_keeps_every_reference(tmp_path, catalog):
    row = {"scene_id": TRAIN, "question_id": "train-0", "question": "what color is the chair?",
           "answers": ["red", "dark red", "red"], "object_ids": [1], "object_names": ["chair"]}  # fmt: skip
    (sample,) = scanqa.read([write(tmp_path / "ScanQA_v1.0_train.json", [row])], catalog)
    assert sample.answers == ("red", "dark red") and sample.tags == ("colour",) and sample.object_ids == (1,)


def sqa3d_files(folder, position, rotation, scene_id=TRAIN):
    question = {"scene_id": scene_id, "question_id": 5, "situation": "I stand.", "question": " Is it red?"}
    answer = {"scene_id": scene_id, "question_id": 5, "answers": [{"answer": "yes", "answer_confidence": "yes"}],
              "position": position, "rotation": rotation}  # fmt: skip
    return [
        write(folder / "v1_balanced_questions_train_scannetv2.json", {"questions": [question]}),
        write(folder / "v1_balanced_sqa_annotations_train_scannetv2.json", {"annotations": [answer]}),
    ]


def test_sqa3d_poses_move_from_the_middle_of_the_raw_mesh_to_the_scene(tmp_path, catalog):
    still = {"_x": 0, "_y": 0, "_z": 0, "_w": 1}
    (sample,) = sqa3d.read(sqa3d_files(tmp_path, {"x": 1, "y": 0, "z": 0}, still), catalog)
    # Raw: bounds 0..4 by 0..4 by 0..2, so the agent stands at (3, 2, 1) and looks along -x. The alignment turns left.
    assert np.allclose(sample.pose.position, (1 - 2, 2 + 3, 0.5))
    assert np.allclose(ahead(sample.pose.rotation), (0, -1))
    assert (sample.question, sample.answers, sample.tags) == ("I stand. Is it red?", ("yes",), ("is",))
    room = catalog.rooms[TRAIN]
    position, rotation = sqa3d.published_pose(sample.pose, room.alignment, room.raw_centre)
    assert np.allclose(list(position.values()), (1, 0, 0))
    assert np.allclose(list(rotation.values()), (0, 0, 0, 1))


def test_threedllm_turns_become_history_and_repeats_become_references(tmp_path, catalog):
    talk = "### human: Hi. ### assistant: Hello. ### assistant: Again. ### human: A chair? ### assistant:"
    rows = [{"scene_id": TRAIN, "question": talk, "answers": [answer]} for answer in ("Yes,", "Yes", "Two.")]
    (sample,) = threedllm.read([write(tmp_path / "3d_llm_embodied_dialogue_filtered_train.json", rows)], catalog)
    assert sample.history == ("Hi.", "Hello. Again.") and sample.question == "A chair?"
    assert sample.answers == ("Yes", "Two.") and sample.task == "dialogue"


@pytest.mark.parametrize(("kind", "task"), threedllm.KINDS.items())
def test_threedllm_file_names_say_the_task(tmp_path, catalog, kind, task):
    rows = [{"scene_id": VAL, "question": "### human: Plan. ### assistant:", "answers": ["1. go"]}]
    # The split is the scene's, whatever the file is called.
    (sample,) = threedllm.read([write(tmp_path / f"3d_llm_{kind}_train.json", rows)], catalog)
    assert (sample.task, sample.split) == (task, "val")


def test_scene30k_answers_come_from_the_chain(tmp_path, catalog, caplog):
    rows = [{"scene_id": TRAIN, "question": "q?", "cot": "<think>a b</think><answer>red</answer>"},
            {"scene_id": TRAIN, "question": "q?", "cot": "red"}]  # fmt: skip
    path = write(tmp_path / "chains.jsonl", "\n".join(map(json.dumps, rows)))
    (sample,) = scene30k.read([path], catalog)
    assert sample.answers == ("red",) and "1 chains" in caplog.text


def test_a_scan_that_nobody_asks_about_gets_true_questions_of_its_own(catalog, labels):
    room = catalog.rooms[TRAIN]
    samples = list(scannet_questions.read(TRAIN, room.objects, room.split, labels.names, seed=0))
    answers = {s.question: s.answers for s in samples}
    assert answers["how many chairs are there?"] == ("2",)
    assert answers["is there a table?"] == ("yes",)
    assert answers["is there a lamp?"] == ("no",)
    assert [s.object_ids for s in samples if s.task == "grounding"] == [(3,)] and "the table." in answers
    assert not any("floor" in question for question in answers)


@pytest.mark.parametrize("folder", ["", "frames"], ids=["beside the scan", "in frames"])
def test_frames_are_aligned_and_lost_poses_left_out(tmp_path, folder):
    scan, tmp_path = tmp_path, tmp_path / folder
    (tmp_path / "color").mkdir(parents=True)
    write(tmp_path / "intrinsic" / "intrinsic_color.txt", "100 0 4 0\n0 100 3 0\n0 0 1 0\n0 0 0 1\n")
    for number in (0, 5, 10):
        Image.new("RGB", (8, 6)).save(tmp_path / "color" / f"{number}.jpg")
        write(tmp_path / "pose" / f"{number}.txt", " ".join(map(str, np.eye(4).ravel())))
    write(tmp_path / "pose" / "5.txt", " ".join(["-inf"] * 16))
    frames = read_frames(scan, np.array(ALIGNMENT))
    assert [path.name for path in frames.colour] == ["0.jpg", "10.jpg"] and frames.size == (8, 6)
    assert np.allclose(frames.poses, ALIGNMENT) and frames.intrinsics.shape == (2, 3, 3)


def test_numbers_with_zeros_in_front_name_the_same_frames(tmp_path):
    write(tmp_path / "intrinsic" / "intrinsic_color.txt", "100 0 4 0\n0 100 3 0\n0 0 1 0\n0 0 0 1\n")
    (tmp_path / "color").mkdir()
    for number in (0, 12):
        Image.new("RGB", (8, 6)).save(tmp_path / "color" / f"{number:06}.jpg")
        write(tmp_path / "pose" / f"{number:06}.txt", " ".join(map(str, np.eye(4).ravel())))
    assert frame_numbers(tmp_path) == [0, 12]
    assert [path.name for path in read_frames(tmp_path, np.eye(4)).colour] == ["000000.jpg", "000012.jpg"]
    assert all(path.is_file() for path in frame_files(tmp_path, [0, 12]))


@pytest.mark.parametrize(
    ("case", "kept", "left_out"),
    [
        ("frames_padded", 2, ()),
        ("frames_resized", 0, tuple(f"frame {n}: {n}.jpg is 320x240, its lens one of about 1297x969" for n in (0, 1))),
    ],
)
def test_frames_as_others_left_them(case, kept, left_out):
    scan = Path(__file__).parents[2] / "shared" / "cases" / case / "scannet" / "scans" / "scene0000_00"
    if not scan.is_dir():
        pytest.skip(f"needs the shared case {case}")
    frames = read_frames(scan, np.eye(4))
    assert len(frames.poses) == kept and frames.left_out == left_out


def test_scans_without_frames_have_none(tmp_path):
    assert len(read_frames(tmp_path, np.eye(4)).poses) == 0


def test_a_rescan_is_the_same_room():
    assert room_of("scene0000_00") == room_of("scene0000_01") == "scene0000"
    with pytest.raises(DataError, match=r"scene0000_01 in val"):
        check_rooms({"scene0000_00": "train", "scene0000_01": "val"}, "here")


def test_manifest_survives_its_file_and_holds_every_hash(root, tmp_path):
    manifest = build([("scannet", root)], frames_per_room=2, workers=2)
    manifest.save(tmp_path / "manifest.json")
    assert Manifest.load(tmp_path / "manifest.json") == manifest
    assert manifest.splits == {scene_id: split for split, scene_id in IDS.items()}
    assert all(len(scene.files) == 4 and len(scene.files[0].sha256) == 64 for _, scene in manifest.locations())


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_writes_the_same_bytes_with_any_number_of_workers(tmp_path, workers):
    write_root(tmp_path / "scannet")
    row = {"scene_id": VAL, "question_id": "val-0", "question": "How many chairs?", "answers": ["2"], "object_ids": []}
    write(tmp_path / "scannet" / "annotations" / "scanqa" / "ScanQA_v1.0_val.json", [row])
    manifest = build([("scannet", tmp_path / "scannet")], frames_per_room=2, workers=1)
    rooms = write_scenes(manifest, tmp_path / "scenes", voxel_size=0.02, workers=workers)
    write_samples(read_samples(manifest, rooms, seed=0), tmp_path / "samples")
    samples = {split: read_models(tmp_path / "samples" / f"{split}.jsonl", Sample) for split in IDS}
    assert {s.source for s in samples["train"]} == {"scannet"} and {s.source for s in samples["val"]} == {"scanqa"}
    ids = [s.id for s in samples["train"]]
    assert ids == sorted(set(ids))
    scene = Scene.load(tmp_path / "scenes", TRAIN)
    assert scene.objects == tuple(rooms[TRAIN].objects.values())
    again = tmp_path / "again"
    write_scenes(manifest, again, voxel_size=0.02, workers=1)
    assert all((again / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "scenes").iterdir())
