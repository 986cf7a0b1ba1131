"""Broken files, one a row: each stops the stage with status 1 and one sentence that says what and where."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_scans import IDS, OBJECTS, corners, ply, write, write_root

from r1pipe.datasets.manifest import build

REPOSITORY = Path(__file__).parents[1]
TRAIN = IDS["train"]
ASCII = (
    "ply\nformat ascii 1.0\nelement vertex 33\n"
    + "".join(f"property float {name}\n" for name in ("x", "y", "z", "red", "green", "blue"))
    + "end_header\n"
)
HEAD = "ply\nformat binary_little_endian 1.0\n"


def scan(root, ending):
    return root / "scans" / TRAIN / f"{TRAIN}{ending}"


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def mesh(root):
    return scan(root, "_vh_clean_2.ply")


def annotation(root, name, rows):
    write(root / "annotations" / name, rows)


def ply_counts_too_many(root):
    mesh(root).write_bytes(mesh(root).read_bytes().replace(b"vertex 33", b"vertex 99"))


def ply_counts_astronomically(root):
    mesh(root).write_bytes(mesh(root).read_bytes().replace(b"vertex 33", b"vertex 999999999999999999"))


def ascii_ply_counts_too_many(root):
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    mesh(root).write_text(f"ply\nformat ascii 1.0\nelement vertex 1000000000000\n{axes}end_header\n0 0 0\n")


def ply_is_cut(root):
    mesh(root).write_bytes(mesh(root).read_bytes()[:-5])


def ply_is_text(root):
    mesh(root).write_text("not a mesh")


def ply_counts_in_words(root):
    mesh(root).write_text(HEAD + "element vertex many\nend_header\n")


def ply_has_no_colour(root):
    mesh(root).write_bytes(mesh(root).read_bytes().replace(b"uchar red", b"uchar rad"))


def ply_has_nan(root):
    xyz = corners(*OBJECTS[0][1:])
    xyz[3, 1] = float("nan")
    mesh(root).write_bytes(ply(xyz))


def ply_is_empty(root):
    mesh(root).write_bytes(ply(np.zeros((0, 3)), count="0"))


def ply_is_in_millimetres(root):
    xyz = np.concatenate([corners(low, size) for _, low, size in OBJECTS] + [[[2.0, 2.0, 2.0]]])
    mesh(root).write_bytes(ply(xyz * 1000))


def ply_has_16_bit_colours(root):
    rows = "".join(f"{i % 5} {i % 3} 0 0 0 {i * 1000}\n" for i in range(33))
    mesh(root).write_text(f"{ASCII}{rows}")


def segments_are_short(root):
    change_json(scan(root, "_vh_clean_2.0.010000.segs.json"), lambda value: value["segIndices"].pop())


def segments_are_words(root):
    change_json(scan(root, "_vh_clean_2.0.010000.segs.json"), lambda v: v.update(segIndices=["a"] * 33))


def aggregation_names_unknown_segments(root):
    change_json(scan(root, ".aggregation.json"), lambda v: v["segGroups"][1].update(segments=[10, 77777]))


def aggregation_repeats_an_object(root):
    change_json(scan(root, ".aggregation.json"), lambda v: v["segGroups"][1].update(objectId=0))


def aggregation_has_no_label(root):
    change_json(scan(root, ".aggregation.json"), lambda v: v["segGroups"][2].pop("label"))


def aggregation_is_cut(root):
    path = scan(root, ".aggregation.json")
    path.write_text(path.read_text()[:-10])


def alignment_is_absent(root):
    scan(root, ".txt").write_text("colorHeight = 968\n")


def alignment_is_short(root):
    scan(root, ".txt").write_text("axisAlignment = 1 0 0 0\n")


def alignment_is_no_rotation(root):
    scan(root, ".txt").write_text("axisAlignment = 2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n")


def label_map_has_no_column(root):
    path = root / "meta" / "scannetv2-labels.combined.tsv"
    path.write_text(path.read_text().replace("nyu40id", "nyu"))


def annotation_of_an_unknown_scene(root):
    rows = [{"scene_id": "scene9999_00", "question_id": "q", "question": "?", "answers": ["a"]}]
    annotation(root, "scanqa/ScanQA_v1.0_val.json", rows)


def annotation_of_an_unknown_object(root):
    rows = [{"scene_id": TRAIN, "object_id": "44", "object_name": "x", "ann_id": "0", "description": "x"}]
    annotation(root, "scanrefer/ScanRefer_filtered_train.json", rows)


def annotation_lacks_a_field(root):
    annotation(root, "multi3drefer/multi3drefer_val.json", [{"scene_id": TRAIN, "ann_id": 0, "object_ids": []}])


def annotation_is_an_object(root):
    annotation(root, "scanqa/ScanQA_v1.0_val.json", {"rows": []})


def annotation_repeats_an_id(root):
    row = {"scene_id": TRAIN, "question_id": "q", "question": "?", "answers": ["a"]}
    annotation(root, "scanqa/ScanQA_v1.0_val.json", [row, row])


def question_has_no_annotation(root):
    row = {"scene_id": TRAIN, "question_id": 1, "situation": "s", "question": "q"}
    annotation(root, "sqa3d/v1_balanced_questions_val_scannetv2.json", {"questions": [row]})


def dialogue_has_no_speaker(root):
    rows = [{"scene_id": TRAIN, "question": "Hello?", "answers": ["a"]}]
    annotation(root, "threedllm/3d_llm_embodied_dialogue_filtered_val.json", rows)


def utterance_contradicts_its_stimulus(root):
    head = "assignmentid,stimulus_id,utterance,tokens,scan_id,target_id,mentions_target_class\n"
    annotation(root, "nr3d/nr3d.csv", head + f"1,{TRAIN}-chair-2-1-2,x,['x'],{TRAIN},2,True\n")


BROKEN = [
    (ply_counts_too_many, ["_vh_clean_2.ply", "at least 17", "found 7"]),
    (ply_counts_astronomically, ["Expected at least 16000000000000", "found 7"]),
    (ascii_ply_counts_too_many, ["Expected at least 6000000000", "found 1"]),
    (ply_is_cut, ["Expected at least 7", "found 7", "_vh_clean_2.ply"]),
    (ply_is_text, ["Expected a PLY header", "_vh_clean_2.ply"]),
    (ply_counts_in_words, ["element <name> <count>", "vertex many"]),
    (ply_has_no_colour, ["x y z red green blue", "['red']"]),
    (ply_has_nan, ["finite coordinates", "found 1 vertices", "row 3"]),
    (ply_is_empty, ["_vh_clean_2.ply", "found 0 vertices"]),
    (ply_is_in_millimetres, ["room in metres, at most 100 across", TRAIN, "found 4,000", "as if in millimetres"]),
    (ply_has_16_bit_colours, ["0..255", "_vh_clean_2.ply", "in 32 of 33 points", "first [0.0, 0.0, 1000.0]"]),
    (segments_are_short, ["segIndices of 33 vertices", "segs.json", "found 32"]),
    (segments_are_words, ["whole numbers as segIndices", "segs.json"]),
    (aggregation_names_unknown_segments, ["object 1", "aggregation.json", "[77777]"]),
    (aggregation_repeats_an_object, ["every objectId once", "[0, 0, 2, 3]"]),
    (aggregation_has_no_label, ["aggregation.json", "segGroups.2.label", "field required"]),
    (aggregation_is_cut, ["Expected JSON", "aggregation.json", "line 1 column"]),
    (alignment_is_absent, ["axisAlignment = <16 numbers>", f"{TRAIN}.txt"]),
    (alignment_is_short, ["16 numbers", f"{TRAIN}.txt", "4 words"]),
    (alignment_is_no_rotation, ["a rotation and a translation", f"{TRAIN}.txt", "[[2.0"]),
    (label_map_has_no_column, ["label map", "no column nyu40id"]),
    (annotation_of_an_unknown_scene, ["ScanQA_v1.0_val.json, row 0", "'scene9999_00'", "scene0000_00 to scene0707_00"]),
    (annotation_of_an_unknown_object, ["ScanRefer_filtered_train.json, row 0", "ids 0, 1, 2, 3", "id 44"]),
    (annotation_lacks_a_field, ["multi3drefer_val.json, row 0", "description", "field required"]),
    (annotation_is_an_object, ["Expected a list", "ScanQA_v1.0_val.json", "dict"]),
    (annotation_repeats_an_id, ["every sample once", f"scanqa-{TRAIN}-q"]),
    (question_has_no_annotation, ["annotation of question 1", TRAIN, "none among 0"]),
    (dialogue_has_no_speaker, ["### human:", "row 0", "'Hello?'"]),
    (utterance_contradicts_its_stimulus, ["target 2", "nr3d.csv, row 0", "chair-2-1-2"]),
]


def workplace(folder, **base):
    """A folder to run stages in: the repository's parameters, one process, no procedural rooms."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["paths"]["scannet"] = str(folder / "scannet")
    params["collect"]["rooms"] = {"train": 0, "val": 0, "test": 0}
    params["base"] |= {"threads": 1, **base}
    write(folder / "params.yaml", yaml.safe_dump(params))
    write_root(folder / "scannet")
    return folder / "scannet"


def start(stage, folder):
    return subprocess.Popen(
        [sys.executable, "-c", stage],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )


def run_stage(monkeypatch, capsys, folder, main):
    """Status and last words of a stage, run in this process."""
    from r1pipe.stages.runner import run

    monkeypatch.chdir(folder)
    # The runner takes the signal for its process; here the process is pytest's.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    status = 0
    try:
        run(main)
    except SystemExit as error:
        status = error.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize(("spoil", "fragments"), BROKEN, ids=[spoil.__name__ for spoil, _ in BROKEN])
def test_prepare_names_what_is_broken_and_leaves_nothing(tmp_path, monkeypatch, capsys, spoil, fragments):
    from r1pipe.stages import prepare

    root = workplace(tmp_path)
    spoil(root)
    build([("scannet", root)], frames_per_room=2, workers=1).save(tmp_path / "data" / "manifest.json")
    status, errors = run_stage(monkeypatch, capsys, tmp_path, prepare.main)
    assert status == 1 and errors.count("\n") == 1 and errors.endswith(".\n")
    assert [fragment for fragment in fragments if fragment not in errors] == [], errors
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["manifest.json"]


def a_changed_byte(root):
    path = scan(root, ".txt")
    path.write_text(path.read_text().replace("968", "969"))


def a_lost_file(root):
    mesh(root).unlink()


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [(a_changed_byte, [f"{TRAIN}.txt", "as it was collected", "run stage collect again"]),
     (a_lost_file, ["Expected a file at", "_vh_clean_2.ply"])],
    ids=["changed", "lost"],
)  # fmt: skip
def test_prepare_refuses_files_that_are_not_what_was_collected(tmp_path, monkeypatch, capsys, spoil, fragments):
    from r1pipe.stages import prepare

    root = workplace(tmp_path)
    build([("scannet", root)], frames_per_room=2, workers=1).save(tmp_path / "data" / "manifest.json")
    spoil(root)
    status, errors = run_stage(monkeypatch, capsys, tmp_path, prepare.main)
    assert status == 1 and all(fragment in errors for fragment in fragments), errors


def in_no_list(root):
    write(root / "meta" / "scannetv2_train.txt", "scene0001_00\n")


def rescan_in_val(root):
    write(root / "meta" / "scannetv2_val.txt", "scene0000_01\nscene0011_00\n")


def no_scans(root):
    (root / "scans").rename(root / "elsewhere")


def no_segments(root):
    scan(root, "_vh_clean_2.0.010000.segs.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "fragments"),
    [(in_no_list, ["in a list of", TRAIN]), (rescan_in_val, ["scene0000_01 in val", "scene0000_00 in train"]),
     (no_scans, ["ScanNet's layout", "scans"]), (no_segments, ["Expected a file", "segs.json"])],
    ids=["in no list", "re-scan in another split", "no scans", "no segments"],
)  # fmt: skip
def test_collect_names_what_does_not_fit(tmp_path, monkeypatch, capsys, spoil, fragments):
    from r1pipe.stages import collect

    spoil(workplace(tmp_path))
    status, errors = run_stage(monkeypatch, capsys, tmp_path, collect.main)
    assert status == 1 and all(fragment in errors for fragment in fragments), errors
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_a_stage_runs_as_a_process_and_notes_its_costs(tmp_path):
    root = workplace(tmp_path)
    build([("scannet", root)], frames_per_room=2, workers=1).save(tmp_path / "data" / "manifest.json")
    process = start("import runpy; runpy.run_module('r1pipe.stages.prepare', run_name='__main__')", tmp_path)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 0, errors
    costs = json.loads((tmp_path / ".work" / "costs.json").read_text())
    assert costs.keys() == {"prepare"}
    assert 0 < costs["prepare"]["seconds"] < 60 and 20 < costs["prepare"]["peak_mib"] < 8192
    assert ">prepare</text>" in (tmp_path / "reports" / "costs.svg").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"])
def test_a_stopped_stage_leaves_no_draft(tmp_path, number, status):
    workplace(tmp_path)
    stage = """
import signal, sys, time
from pathlib import Path
from r1pipe.files import whole
from r1pipe.stages.runner import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a script starts in the background
def main(params):
    with whole(Path("out.txt")) as draft:
        draft.write_text("half")
        sys.stderr.write("ready\\n"); sys.stderr.flush()
        time.sleep(60)
run(main)
"""
    process = start(stage, tmp_path)
    assert process.stderr.readline() == "ready\n"
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == status and "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml", "scannet"]
