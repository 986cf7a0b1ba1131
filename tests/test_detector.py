"""The detector: average precision, grouping, and a trained encoder on small rooms."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from r1pipe.errors import DataError, MissingError, ModelError
from r1pipe.geometry import Box, iou
from r1pipe.metrics.detection import Labelled, area_under_envelope, mean_average_precision
from r1pipe.models.encoders.cloud import voxelise
from r1pipe.models.encoders.detector import best_first, propose
from r1pipe.models.encoders.points import PointEncoder, PointNetwork
from r1pipe.params import Params
from r1pipe.scenes.scene import Scene, SceneObject
from r1pipe.training.encoders.clouds import NOTHING, annotated, augmented, example, object_targets, vocabulary
from r1pipe.training.encoders.points import Settings, evaluate_detector, train_points

PARAMS = Params.load().backbones
DETECTOR = PARAMS.detector.model_copy(update={"min_class_scenes": 1})
POINTS = PARAMS.points.model_copy(
    update={
        "voxel_size": 0.15,
        "enc_channels": (16, 24, 32),
        "enc_num_head": (1, 2, 2),
        "enc_depths": (0, 1, 1),
        "dec_depths": (0, 1),
        "dec_channels": (24, 24),
        "dec_num_head": (1, 2),
        "stride": (2, 2),
        "steps": 60,
        "learning_rate": 3e-3,
        "batch_size": 2,
    }
)
CHAIR, SOFA = (0.4, 0.4, 0.9), (1.6, 0.8, 0.7)


def surface(box: Box, rng: np.random.Generator, spacing: float = 0.05) -> np.ndarray:
    """Points on the five visible sides of a box, corners included."""
    count = max(int(2 * sum(box.size) / spacing**1.5), 40)
    unit_P3 = rng.random((count, 3)) - 0.5
    side = rng.integers(0, 5, count)
    axis, sign = np.array([0, 0, 1, 1, 2])[side], np.array([-0.5, 0.5, -0.5, 0.5, 0.5])[side]
    unit_P3[np.arange(count), axis] = sign
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return np.array(box.centre) + np.concatenate([unit_P3, corners]) * box.size


def room(seed: int, things: list[tuple[str, int, Box, tuple[int, int, int]]] | None = None) -> Scene:
    rng = np.random.default_rng(seed)
    if things is None:
        x = rng.uniform(-1.6, -0.9), rng.uniform(0.4, 1.2)
        colours = [(195, 45, 45), (50, 85, 195)]
        things = [
            ("chair", 5, Box(x[0], -0.8, 0.45, *CHAIR), colours[int(rng.integers(2))]),
            ("sofa", 6, Box(x[1], 0.8, 0.35, *SOFA), colours[int(rng.integers(2))]),
        ]
    floor = rng.random((3000, 3)) * [5, 4, 0] - [2.5, 2, 0]
    parts = [floor, *(surface(box, rng) for _, _, box, _ in things)]
    colours_all = [(120, 85, 55), *(colour for *_, colour in things)]
    rgb = np.concatenate([np.full((len(p), 3), c) for p, c in zip(parts, colours_all, strict=True)])
    xyz = np.concatenate(parts).astype(np.float32)
    instance = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    labels = [("floor", 2), *((label, nyu40) for label, nyu40, *_ in things)]
    objects = tuple(
        SceneObject(i, label, nyu40, Box.around(xyz[instance == i])) for i, (label, nyu40) in enumerate(labels)
    )
    return Scene(f"room{seed:04d}_00", xyz, rgb.astype(np.uint8), instance.astype(np.int32), objects)


@pytest.fixture(scope="module")
def trained() -> PointEncoder:
    torch.set_num_threads(1)
    return train_points([room(i) for i in range(8)], POINTS, DETECTOR, seed=0)


def boxes(*x: float) -> np.ndarray:
    return np.array([[value, 0, 0, 1, 1, 1] for value in x], dtype=float).reshape(-1, 6)


@pytest.mark.parametrize(
    ("hits", "targets", "expected"),
    [
        pytest.param([1, 1], 2, 1.0, id="all found, nothing else"),
        pytest.param([1, 0], 1, 1.0, id="a false alarm after the last hit costs nothing"),
        pytest.param([0, 1], 1, 0.5, id="a false alarm before it does"),
        pytest.param([1], 4, 0.25, id="what is missed counts as zero precision"),
        pytest.param([1, 0, 0, 1, 1], 3, (1 + 0.6 + 0.6) / 3, id="precision is raised to the best one after it"),
        pytest.param([], 3, 0.0, id="nothing found"),
        pytest.param([0, 0], 0, 0.0, id="nothing to find"),
    ],
)
def test_average_precision_is_the_area_under_the_envelope(hits, targets, expected):
    assert area_under_envelope(np.array(hits, dtype=bool), targets) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("found", "labels", "scores", "expected"),
    [
        pytest.param(boxes(0, 5), ("a", "b"), [0.9, 0.8], 1.0, id="both classes found"),
        pytest.param(boxes(0, 5), ("b", "a"), [0.9, 0.8], 0.0, id="in each other's place"),
        pytest.param(boxes(0), ("a",), [0.9], 0.5, id="one class missing"),
        pytest.param(boxes(0.2, 0, 5), ("a", "a", "b"), [0.9, 0.8, 0.7], 1.0, id="a second claim comes too late"),
        pytest.param(boxes(3, 0, 5), ("a", "a", "b"), [0.9, 0.8, 0.7], 0.75, id="a surer false alarm halves its class"),
        pytest.param(
            boxes(0, 5, 9), ("a", "b", "c"), [0.9, 0.8, 0.7], 1.0, id="a class without targets is not counted"
        ),
        pytest.param(boxes(0.5, 5), ("a", "b"), [0.9, 0.8], 0.5, id="IoU of a third is not enough at 0.5"),
    ],
)
def test_mean_average_precision_averages_over_the_targets_classes(found, labels, scores, expected):
    predicted = Labelled(found, labels, np.array(scores))
    target = Labelled(boxes(0, 5), ("a", "b"), np.zeros(0))
    empty = Labelled(boxes(), (), np.zeros(0))
    assert mean_average_precision([predicted, empty], [target, empty], 0.5) == pytest.approx(expected)


def test_perfect_votes_recover_exact_boxes_of_touching_and_of_two_coloured_things():
    chair = ("chair", 5, Box(0.0, 0.0, 0.45, *CHAIR), (195, 45, 45))
    touching = ("chair", 5, Box(0.44, 0.0, 0.45, *CHAIR), (50, 85, 195))
    far = ("sofa", 6, Box(-1.5, 0.0, 0.35, *SOFA), (240, 220, 65))
    scene = room(0, [chair, touching, far])
    rgb = scene.rgb.copy()
    rgb[(scene.instance == 3) & (scene.xyz[:, 2] > 0.4)] = (40, 40, 40)
    voted_P6 = np.array([scene.objects[i].box for i in scene.instance], dtype=np.float32)
    thing_P = (scene.instance > 0).astype(np.float32)
    found = np.stack([p.box for p in propose(scene.xyz, rgb, thing_P, voted_P6, DETECTOR)])
    overlap = iou([o.box for o in scene.objects[1:]], found)
    assert np.allclose(overlap.max(axis=1), 1.0, atol=1e-5)


def test_a_detection_is_dropped_for_a_better_one_in_its_place_and_for_a_low_score():
    found = np.concatenate([boxes(0, 0.1, 3, 6)]).astype(np.float32)
    assert best_first(found, np.array([0.5, 0.9, 0.7, 0.01], np.float32), DETECTOR) == [1, 2]


def test_voxels_average_their_points_and_stand_on_the_floor():
    xyz = np.array([[0.01, 0.01, 1.0], [0.05, 0.03, 1.02], [0.95, 0.0, 0.0]], np.float32)
    grid = voxelise(xyz, np.array([[255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8), 0.1)
    assert len(grid.cell) == 2 and grid.of_point.tolist() == [0, 0, 1]
    assert np.allclose(grid.xyz[0], [0.03, 0.02, 1.01]) and np.allclose(grid.features[0, :3], [0, -1, 0])
    assert grid.features[0, 5] == pytest.approx(1.0, abs=0.05) and grid.cell.min() == 0
    with pytest.raises(ModelError, match="found none"):
        voxelise(xyz[:0], np.zeros((0, 3), np.uint8), 0.1)


def test_augmented_boxes_stay_tight_around_their_points():
    scene = room(3)
    classes, structure = vocabulary([scene], DETECTOR)
    assert classes == (NOTHING, "chair", "floor", "sofa") and structure == ("floor",)
    whole = example(scene, Settings(points=POINTS, detector=DETECTOR, classes=classes, structure=structure))
    for seed in range(8):
        one = augmented(whole, np.random.default_rng(seed))
        found = annotated(one)
        assert np.allclose([p.box for p in found], one.box[[1, 2]], atol=1e-4)
        assert object_targets([one], [found]).classes.tolist() == [1, 3]


def test_classes_may_be_nyu40_and_must_be_frequent():
    scene = room(0)
    assert vocabulary([scene], DETECTOR.model_copy(update={"classes": "nyu40"}))[0] == (
        NOTHING,
        "chair",
        "floor",
        "sofa",
    )
    with pytest.raises(DataError, match="at least 3 train scenes"):
        vocabulary([scene], DETECTOR.model_copy(update={"min_class_scenes": 3}))


def test_a_short_training_finds_unseen_objects_and_never_the_floor(trained):
    scenes = [room(100 + i) for i in range(4)]
    assert evaluate_detector(trained, scenes)["recall_50"] >= 0.75
    found = trained.encode(scenes[0])
    assert found.features.shape == (len(found.xyz), trained.hidden_size)
    assert found.detections.features.shape == (len(found.detections.boxes), trained.hidden_size)
    assert set(found.detections.labels) <= {"chair", "sofa"} and (np.diff(found.detections.scores) <= 0).all()


@pytest.mark.slow
def test_training_repeats_to_the_byte_and_survives_saving(trained, tmp_path):
    again = train_points([room(i) for i in range(8)], POINTS, DETECTOR, seed=0)
    for name, encoder in (("one", trained), ("two", again)):
        encoder.save(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    loaded = PointEncoder.load(tmp_path / "two")
    assert np.array_equal(loaded.encode(room(50)).detections.features, trained.encode(room(50)).detections.features)


def test_a_broken_encoder_is_refused_with_the_reason(trained, tmp_path):
    trained.save(tmp_path / "points")
    (tmp_path / "points" / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot read"):
        PointEncoder.load(tmp_path / "points")
    (tmp_path / "points" / "config.json").unlink()
    with pytest.raises(MissingError, match=r"config\.json"):
        PointEncoder.load(tmp_path / "points")


def test_a_published_backbone_is_loaded_whole_or_refused(trained, tmp_path):
    state = {f"module.backbone.{n}": v for n, v in trained.network.backbone.state_dict().items()}
    state["module.seg_head.weight"] = torch.zeros(20, 24)
    path, network = tmp_path / "ptv3.safetensors", PointNetwork(POINTS, 4)
    save_file(state, path)
    network.load_backbone(path)
    assert torch.equal(
        network.backbone.embedding.stem["conv"].weight, state["module.backbone.embedding.stem.conv.weight"]
    )
    del state["module.backbone.enc.enc1.down.proj.bias"]
    save_file(state, path)
    with pytest.raises(ModelError, match=r"enc\.enc1\.down\.proj\.bias"):
        network.load_backbone(path)
    with pytest.raises(MissingError, match="no such file"):
        network.load_backbone(tmp_path / "none")
