"""Readers on the real files beside the repository; every test skips where they are absent."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from r1pipe.datasets import sqa3d, threedllm
from r1pipe.datasets.catalog import Catalog, Room
from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.manifest import build, read_splits
from r1pipe.datasets.preparation import read_samples, write_scenes
from r1pipe.datasets.rows import json_rows
from r1pipe.scenes.graph import ahead
from r1pipe.scenes.scene import Scene

DATA = Path(__file__).parents[2] / "shared" / "data"
SCENE = "scene0000_00"
MISSING = [name for name in ("scannet", "frames", "sqa3d", "threedllm") if not (DATA / name).is_dir()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} at {DATA}")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    manifest = build([("scannet", DATA / "scannet")], frames_per_room=2, workers=1)
    rooms = write_scenes(manifest, folder, voxel_size=0.02, workers=1)
    return Scene.load(folder, SCENE), read_samples(manifest, rooms, seed=0)


@pytest.fixture(scope="module")
def catalog():
    """The official lists, every scene with its published alignment and no objects."""
    meta = DATA / "scannet" / "meta"
    splits = read_splits(meta)
    matrices = json.loads((meta / "scans_axis_alignment_matrices.json").read_text())
    rooms = {i: Room(splits[i], {}, np.reshape(m, (4, 4)), (0, 0, 0)) for i, m in matrices.items() if i in splits}
    return Catalog(splits, rooms, LabelMap.load(meta / "scannetv2-labels.combined.tsv"))


def test_the_published_boxes_are_derived_again_to_float_precision(prepared):
    scene, _ = prepared
    published = json.loads((DATA / "frames" / f"{SCENE}.json").read_text())["boxes"]
    boxes = np.array([o.box for o in scene.objects])
    distances = [np.abs(boxes - box["box_aligned"]).max(axis=1).min() for box in published]
    assert len(published) == 27 and max(distances) < 1e-6


def test_the_scan_is_prepared_whole(prepared):
    scene, samples = prepared
    assert len(scene.objects) == 67 and len(set(scene.instance.tolist()) - {-1}) == 67
    assert all(o.nyu40 for o in scene.objects)
    answers = {s.question: s.answers for s in samples}
    assert answers["how many beds are there?"] == ("1",) and answers["how many doors are there?"] == ("3",)
    assert {s.split for s in samples} == {"train"}


def test_every_sqa3d_question_is_read(catalog):
    paths = sorted((DATA / "sqa3d").glob("*.json"))
    samples = list(sqa3d.read(paths, catalog))
    assert len(samples) == len({s.id for s in samples}) == 3261
    assert {s.split for s in samples} == {"val"} and len({s.scene_id for s in samples}) == 65
    assert {tag for s in samples for tag in s.tags} == {"what", "is", "how", "can", "which", "other"}


def test_sqa3d_agents_look_along_the_walls_of_the_aligned_scene(catalog):
    """Turned by the alignment the yaws cluster at four directions; as published they do not."""
    samples = list(sqa3d.read(sorted((DATA / "sqa3d").glob("*.json")), catalog))
    forward = np.array([ahead(s.pose.rotation) for s in samples])
    assert abs(np.exp(4j * np.arctan2(forward[:, 1], forward[:, 0])).mean()) > 0.75


@pytest.mark.parametrize(
    ("kind", "num_rows", "num_samples"),
    [("embodied_dialogue_filtered", 1222, 1125), ("embodied_question_answer", 1938, None), ("scene_description", 121, None)],
)  # fmt: skip
def test_every_threedllm_row_is_read(catalog, kind, num_rows, num_samples):
    path = DATA / "threedllm" / f"3d_llm_{kind}_val.json"
    rows = [row for _, row in json_rows([path], threedllm.Exchange)]
    samples = list(threedllm.read([path], catalog))
    assert len(rows) == num_rows
    assert len(samples) == len({(row.scene_id, row.question) for row in rows})
    assert num_samples in (None, len(samples))
    assert {s.split for s in samples} == {"train"}  # the file is called val
    assert not any(answer.endswith(",") for s in samples for answer in s.answers)


def test_the_known_defects_of_the_threedllm_files_are_there():
    def rows(kind):
        return [row for _, row in json_rows([DATA / "threedllm" / f"3d_llm_{kind}_val.json"], threedllm.Exchange)]

    dialogue = rows("embodied_dialogue_filtered")
    assert len(dialogue) - len({(r.scene_id, r.question, r.answers) for r in dialogue}) == 16
    assert len(dialogue) - len({(r.scene_id, r.question) for r in dialogue}) == 97
    assert sum(r.answers[0].endswith(",") for r in rows("embodied_question_answer")) == 1158
    assert max(Counter(r.scene_id for r in rows("scene_description")).values()) == 2
