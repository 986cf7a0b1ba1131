"""Proposals made elsewhere: Mask3D's masks over a scan's vertices in, detections of their boxes out."""

import io
import zipfile

import numpy as np
import pytest
import torch
from tiny_scans import IDS, write_root

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.manifest import build
from r1pipe.datasets.preparation import write_scenes
from r1pipe.datasets.scannet import read_scan
from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import iou
from r1pipe.models.encoders.points import PointEncoder, PointNetwork, Settings
from r1pipe.models.encoders.proposals import Masks
from r1pipe.params import Params
from r1pipe.scenes.scene import Scene

SCENE = IDS["train"]
NUM_VERTICES = 33
COARSE_M = 0.6
"""A grid on which `prepare` drops vertices of every object."""


@pytest.fixture
def whole(tmp_path):
    """The scan with every vertex, as Mask3D sees it."""
    root = write_root(tmp_path / "scannet")
    return read_scan(root / "scans", SCENE, LabelMap.load(root / "meta" / "scannetv2-labels.combined.tsv")).scene


@pytest.fixture
def masks(tmp_path, whole):
    (tmp_path / "masks").mkdir()
    return Masks.of(tmp_path / "masks", build([("scannet", tmp_path / "scannet")], frames_per_room=0, workers=1))


@pytest.fixture
def scene(tmp_path, masks):
    manifest = build([("scannet", tmp_path / "scannet")], frames_per_room=0, workers=1)
    write_scenes(manifest, tmp_path / "scenes", voxel_size=COARSE_M, workers=1)
    return Scene.load(tmp_path / "scenes", SCENE)


def exact(whole, dtype=bool):
    """A mask for each annotated object."""
    return np.stack([whole.instance == thing.id for thing in whole.objects], axis=1).astype(dtype)


def write(masks, pred_masks, **others):
    np.savez(masks.folder / f"{SCENE}.npz", pred_masks=pred_masks, **others)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_annotated_masks_are_detected_with_their_exact_boxes_though_the_cloud_was_thinned(whole, masks, scene, dtype):
    write(masks, exact(whole, dtype), pred_scores=np.ones(4), pred_classes=np.arange(4))
    params = Params.load().backbones
    detector = params.detector.model_copy(update={"score_threshold": 0.0, "nms_iou": 1.0})
    settings = Settings(points=params.points, detector=detector, classes=("nothing", "chair"), structure=())
    torch.manual_seed(0)
    encoder = PointEncoder(settings, PointNetwork(params.points, 2))
    found = encoder.encode(scene, masks.read(scene)).detections
    boxes = np.array([thing.box for thing in whole.objects])
    assert len(scene.xyz) < NUM_VERTICES and len(found.boxes) == len(boxes)
    np.testing.assert_allclose(iou(boxes, found.boxes).max(axis=1), 1, atol=1e-5)
    assert found.features.shape == (4, encoder.hidden_size) and set(found.labels) == {"chair"}


def test_a_proposal_has_the_points_that_were_kept_of_its_vertices(whole, masks, scene):
    write(masks, exact(whole))
    for thing, proposal in zip(whole.objects, masks.read(scene), strict=True):
        expected = np.flatnonzero(scene.instance == thing.id)
        np.testing.assert_array_equal(np.sort(proposal.points), expected)


def test_proposals_without_a_kept_point_are_passed_over(whole, masks, scene):
    kept = {tuple(row) for row in scene.xyz.tolist()}
    dropped = next(i for i, row in enumerate(whole.xyz.tolist()) if tuple(row) not in kept)
    columns = np.zeros((NUM_VERTICES, 3), bool)
    columns[dropped, 1] = True
    columns[:, 2] = True
    write(masks, columns)
    assert [len(proposal.points) for proposal in masks.read(scene)] == [len(scene.xyz)]


def test_no_proposals_are_no_detections(masks, scene):
    write(masks, np.zeros((NUM_VERTICES, 0), bool))
    assert masks.read(scene) == []


def promising():
    """A header of 10^12 bytes with nothing behind it."""
    header = b"{'descr': '|b1', 'fortran_order': False, 'shape': (33, 30000000000), }".ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("pred_masks.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def floats(value):
    masks = np.zeros((NUM_VERTICES, 4), np.float32)
    masks[5, 2] = value
    return masks


BAD = {
    "rows of another scan": (npz(pred_masks=np.zeros((34, 4), bool)), "shape (33, at most 1,000)", "found (34, 4)"),
    "the wrong way round": (npz(pred_masks=np.zeros((4, NUM_VERTICES), bool)), "shape (33,", "found (4, 33)"),
    "one mask": (npz(pred_masks=np.zeros(NUM_VERTICES, bool)), "shape (33,", "found (33,)"),
    "too many": (npz(pred_masks=np.zeros((NUM_VERTICES, 1001), bool)), "at most 1,000", "found (33, 1001)"),
    "a promise of much memory": (promising(), "at most 1,000", "found (33, 30000000000)"),
    "another name": (npz(masks=np.zeros((NUM_VERTICES, 4), bool)), "arrays pred_masks", "['masks.npy']"),
    "NaN": (npz(pred_masks=floats(np.nan)), "0 and 1", "1 other values, such as nan"),
    "logits": (npz(pred_masks=floats(0.5)), "0 and 1", "1 other values, such as 0.5"),
    "pickled": (npz(pred_masks=np.array([[None]] * NUM_VERTICES)), "Expected numbers", "found object"),
    "cut": (npz(pred_masks=np.zeros((NUM_VERTICES, 4), bool))[:-30], "NumPy archive", "does not read"),
    "text": (b"no archive", "NumPy archive", "does not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_masks_are_refused_with_file_expected_and_found(masks, scene, name):
    content, *fragments = BAD[name]
    (masks.folder / f"{SCENE}.npz").write_bytes(content)
    with pytest.raises(DataError) as error:
        masks.read(scene)
    sentence = str(error.value)
    assert [fragment for fragment in (*fragments, f"{SCENE}.npz") if fragment not in sentence] == [], sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_missing_masks_and_a_missing_folder_are_named(tmp_path, masks, scene):
    with pytest.raises(MissingError, match=f"{SCENE} at .*{SCENE}.npz"):
        masks.read(scene)
    with pytest.raises(MissingError, match="nowhere"):
        Masks.of(tmp_path / "nowhere", build([("scannet", tmp_path / "scannet")], frames_per_room=0, workers=1))


def test_a_scene_prepared_from_another_scan_is_refused(whole, masks, scene):
    write(masks, exact(whole))
    moved = Scene(scene.id, scene.xyz + np.float32(0.25), scene.rgb, scene.instance, scene.objects)
    with pytest.raises(DataError, match=r"33 vertices of .*_vh_clean_2\.ply, found .* m away; run stage prepare"):
        masks.read(moved)
