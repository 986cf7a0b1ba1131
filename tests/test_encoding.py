"""Scenes and questions through tiny, untrained, real encoders."""

import weakref

import numpy as np
import pytest
from tiny_encoders import ENCODE, NUM_POINTS, NUM_VIEWS, RENDER, room, write_stages

from r1pipe.errors import MissingError, ModelError
from r1pipe.models.encoders import texts
from r1pipe.models.encoders.encoding import Encoders, Job
from r1pipe.models.encoders.regions import farthest_points, pool_regions
from r1pipe.models.encoders.texts import TextTable
from r1pipe.models.features import SceneFeatures
from r1pipe.scenes.scene import Scene, scene_ids
from r1pipe.views.views import Views, render_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stages(tmp_path_factory.mktemp("encoding"))


@pytest.fixture(scope="module")
def encoders(folder):
    return Encoders.load(folder / "backbones", ENCODE)


@pytest.fixture(scope="module")
def encoded(encoders):
    scene = room("room0_00", 0)
    return encoders.encode(scene, render_scene(scene, RENDER))


def test_every_part_has_the_promised_shape(encoders, encoded):
    width = encoders.points.hidden_size
    assert encoded.point_features.shape == (NUM_POINTS, width)
    assert encoded.point_xyz.shape == (NUM_POINTS, 3)
    assert encoded.object_features.shape == (len(encoded.object_boxes), width)
    assert encoded.object_boxes.shape == (len(encoded.object_scores), 6)
    assert len(encoded.object_labels) == len(encoded.object_scores)
    assert encoded.view_features.shape == (NUM_VIEWS, encoders.image.hidden_size)
    assert encoded.depth_features.shape == (NUM_VIEWS, encoders.depth.hidden_size)
    assert encoded.cameras.shape == (NUM_VIEWS, 4, 4)
    assert encoded.coverage.shape == (NUM_VIEWS,)
    for unit in (encoded.clip_images, encoded.clip_points):
        assert unit.shape == (NUM_VIEWS, encoders.clip.dim)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    for name, value in vars(encoded).items():
        assert not isinstance(value, np.ndarray) or value.dtype == np.float32, name


def test_the_best_detection_comes_first(encoded):
    assert (np.diff(encoded.object_scores) <= 0).all()


def test_annotations_are_not_looked_at(encoders, encoded):
    bare = room("room0_00", 0)
    told = Scene(bare.id, bare.xyz, bare.rgb, np.zeros(len(bare.xyz), np.int32), ())
    again = encoders.encode(told, render_scene(told, RENDER))
    np.testing.assert_array_equal(again.object_boxes, encoded.object_boxes)
    np.testing.assert_array_equal(again.clip_points, encoded.clip_points)
    np.testing.assert_array_equal(again.cameras, encoded.cameras)


def test_other_colours_give_other_views_and_points(encoders, encoded):
    scene = room("room0_00", 0)
    grey = Scene(scene.id, scene.xyz, np.full_like(scene.rgb, 128), scene.instance, ())
    other = encoders.encode(grey, render_scene(grey, RENDER))
    for name in ("point_features", "view_features", "depth_features", "clip_images", "clip_points"):
        assert np.abs(getattr(other, name) - getattr(encoded, name)).max() > 1e-4, name


@pytest.mark.parametrize("points", [1, 2, 40])
def test_a_cloud_of_few_points_is_encoded(encoders, points):
    full = room("few_00", 0)
    few = Scene("few_00", full.xyz[:points], full.rgb[:points], full.instance[:points], ())
    found = encoders.encode(few, render_scene(few, RENDER))
    assert found.point_features.shape == (NUM_POINTS, encoders.points.hidden_size)
    assert all(np.isfinite(value).all() for value in vars(found).values() if isinstance(value, np.ndarray))


def test_a_missing_encoder_is_an_error(folder, tmp_path):
    (tmp_path / "clip").symlink_to(folder / "backbones" / "clip")
    with pytest.raises(MissingError, match="image"):
        Encoders.load(tmp_path, ENCODE)


@pytest.mark.parametrize("processes", [1, 2])
def test_files_do_not_depend_on_how_many_work_on_them(folder, encoders, tmp_path, processes):
    job = Job(encoders, None, folder / "scenes", folder / "views", tmp_path)
    job.run(scene_ids(folder / "scenes"), processes=processes)
    assert scene_ids(tmp_path) == scene_ids(folder / "scenes")
    for scene_id in scene_ids(tmp_path):
        one = folder / "alone" / f"{scene_id}.safetensors"
        if not one.is_file():
            Job(encoders, None, folder / "scenes", folder / "views", one.parent).encode(scene_id)
        assert one.read_bytes() == (tmp_path / one.name).read_bytes()


def test_finished_scenes_are_not_encoded_again(folder, encoders, tmp_path):
    job = Job(encoders, None, folder / "scenes", folder / "views", tmp_path)
    job.encode("room1_00")
    before = (tmp_path / "room1_00.safetensors").stat().st_mtime_ns
    job.run(scene_ids(folder / "scenes"), processes=1)
    assert (tmp_path / "room1_00.safetensors").stat().st_mtime_ns == before
    assert SceneFeatures.load(tmp_path, "room2_00").scene_id == "room2_00"


def test_what_a_killed_worker_left_is_no_scene_and_goes(folder, encoders, tmp_path):
    (tmp_path / ".draft-1-room0_00.safetensors").write_bytes(b"half")
    assert scene_ids(tmp_path) == []
    Job(encoders, None, folder / "scenes", folder / "views", tmp_path).run(["room0_00"], processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["room0_00.safetensors"]


def test_one_scene_at_a_time_is_in_memory(folder, encoders, tmp_path, monkeypatch):
    load, loaded = Views.load, []

    def watched(*where):
        assert [views() for views in loaded] == [None] * len(loaded)
        found = load(*where)
        loaded.append(weakref.ref(found))
        return found

    monkeypatch.setattr(Views, "load", watched)
    Job(encoders, None, folder / "scenes", folder / "views", tmp_path).run(scene_ids(folder / "scenes"), processes=1)
    assert len(loaded) == len(scene_ids(folder / "scenes"))


def test_a_worker_s_error_reaches_the_caller(folder, encoders, tmp_path):
    job = Job(encoders, None, folder / "scenes", folder / "views", tmp_path)
    with pytest.raises(MissingError, match="room9_00"):
        job.run(["room9_00", "room1_00"], processes=2)


def test_texts_are_found_again_and_stay_apart_from_the_scenes(encoders, tmp_path):
    TextTable.embed(["what is red?", "is it?", "is it?"], encoders.clip).save(tmp_path)
    table = TextTable.load(tmp_path)
    assert table.texts == ("is it?", "what is red?")
    assert scene_ids(tmp_path) == []
    expected = encoders.clip.encode_text(["what is red?", "is it?"])
    np.testing.assert_allclose(table.lookup(["what is red?", "is it?"]), expected, atol=1e-6)
    assert table.lookup([]).shape == (0, encoders.clip.dim)


def test_renamed_objects_do_not_change_a_question_s_embedding(encoders, tmp_path):
    TextTable.embed(["describe <obj_007>."], encoders.clip).save(tmp_path)
    table = TextTable.load(tmp_path)
    np.testing.assert_array_equal(table.lookup(["describe <obj_031>."]), table.lookup(["describe <obj_007>."]))


def test_of_texts_beyond_the_table_the_last_are_kept(encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "MAX_ASKED", 2)
    TextTable.embed(["known"], encoders.clip).save(tmp_path)
    table = TextTable.load(tmp_path, encoders.clip)
    asked = [table.lookup([text])[0] for text in ("a", "b", "c")]
    assert list(table._asked) == ["b", "c"]
    np.testing.assert_array_equal(table.lookup(["a", "known", "c"])[[0, 2]], [asked[0], asked[2]])


def test_unknown_texts_need_a_clip(encoders, tmp_path):
    TextTable.embed(["known"], encoders.clip).save(tmp_path)
    with pytest.raises(MissingError, match="unheard of"):
        TextTable.load(tmp_path).lookup(["known", "unheard of"])
    found = TextTable.load(tmp_path, encoders.clip).lookup(["unheard of", "known"])
    np.testing.assert_allclose(found, encoders.clip.encode_text(["unheard of", "known"]), atol=1e-6)


def test_texts_that_were_never_embedded_are_an_error(tmp_path):
    with pytest.raises(MissingError, match="texts"):
        TextTable.load(tmp_path)


def test_regions_are_means_of_what_is_nearest():
    xyz = np.array([[0, 0, 0], [0.2, 0, 0], [5, 0, 0], [5.2, 0, 0], [2.6, 4, 0]], np.float32)
    features = np.arange(5, dtype=np.float32)[:, None]
    centres, means = pool_regions(xyz, features, 3)
    assert sorted(means.ravel().tolist()) == [0.5, 2.5, 4]
    np.testing.assert_allclose(np.sort(centres[:, 0]), [0.1, 2.6, 5.1], rtol=1e-6)


def test_the_first_region_starts_nearest_to_the_middle():
    xyz = np.array([[0, 0, 0], [10, 0, 0], [4, 0, 0]], np.float32)
    assert farthest_points(xyz, 3).tolist() == [2, 1, 0]


@pytest.mark.parametrize("points", [1, 2, 3, 500])
def test_there_are_always_as_many_regions_as_asked_for(points):
    rng = np.random.default_rng(0)
    xyz, features = rng.normal(size=(points, 3)).astype(np.float32), rng.normal(size=(points, 6)).astype(np.float32)
    centres, means = pool_regions(xyz, features, 8)
    assert centres.shape == (8, 3)
    assert means.shape == (8, 6)
    assert np.isfinite(means).all()
    if points == 1:
        np.testing.assert_array_equal(means, np.tile(features, (8, 1)))


def test_an_empty_cloud_has_no_regions():
    with pytest.raises(ModelError, match="found none"):
        pool_regions(np.zeros((0, 3), np.float32), np.zeros((0, 4), np.float32), 4)
