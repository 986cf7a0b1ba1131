"""Cameras, the renderer, candidate placement and view scores."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_room import RENDER, box_room

from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import transform
from r1pipe.views.cameras import Cameras, join, look_at, pinhole
from r1pipe.views.placement import candidates, num_candidates
from r1pipe.views.renderer import NOTHING, render
from r1pipe.views.scores import embed_visible, greedy_coverage, lift, view_scores
from r1pipe.views.views import Views, render_scene

SHARED = Path(__file__).parents[2] / "shared" / "data"


def front(size=(20, 10), focal=10.0, count=1):
    """Cameras at the origin whose right, down, forward are the world's x, y, z."""
    intrinsics = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    return Cameras(np.tile(np.eye(4), (count, 1, 1)), np.tile(intrinsics, (count, 1, 1)), size)


def draw(points, cameras, radius=0):
    xyz = np.array(points, np.float32).reshape(-1, 3)
    rgb = np.arange(3 * len(xyz), dtype=np.uint8).reshape(-1, 3) + 1
    return render(xyz, rgb, cameras, radius=radius)


def test_projection_is_the_pinhole_equation():
    rng = np.random.default_rng(0)
    eyes, points = rng.normal(size=(4, 3)), rng.normal(size=(50, 3)) * 4
    cameras = Cameras(look_at(eyes, np.zeros(3)), np.tile(pinhole((64, 48), 70), (4, 1, 1)), (64, 48))
    uv, depth = cameras.project(points)
    for v, (pose, k) in enumerate(zip(cameras.poses, cameras.intrinsics, strict=True)):
        local = transform(points, np.linalg.inv(pose))
        np.testing.assert_allclose(depth[v], local[:, 2])
        ahead = local[:, 2] > 0
        image = local[ahead] @ k.T
        np.testing.assert_allclose(uv[v][ahead], image[:, :2] / image[:, 2:])
        assert np.isnan(uv[v][~ahead]).all()


def test_a_camera_is_upright_and_sees_its_target_in_the_middle():
    cameras = Cameras(look_at(np.array([[2.0, 1, 1.5]]), np.array([-1, 0, 0.5])), pinhole((64, 48), 90)[None], (64, 48))
    right, down, forward = cameras.poses[0, :3, :3].T
    np.testing.assert_allclose(np.cross(right, down), forward, atol=1e-12)
    assert abs(right[2]) < 1e-12
    assert down[2] < 0
    np.testing.assert_allclose(cameras.project(np.array([[-1, 0, 0.5]]))[0][0, 0], [31.5, 23.5])


def test_straight_down_has_y_up_in_the_image():
    pose = look_at(np.array([[0.0, 0, 3]]), np.array([0.0, 0, 0]))[0]
    np.testing.assert_allclose(pose[:3, :3], np.diag([1.0, -1, -1]), atol=1e-12)


def test_a_camera_at_its_target_is_an_error():
    with pytest.raises(DataError, match="away from what it looks at"):
        look_at(np.zeros((1, 3)), np.zeros(3))


def test_field_of_view_reaches_the_outer_edge_of_the_image():
    k = pinhole((100, 50), 90)
    left_edge = (-0.5 - k[0, 2]) / k[0, 0]
    assert left_edge == pytest.approx(-1)


def test_fitted_cameras_see_the_same_width():
    wide = Cameras(np.eye(4)[None], pinhole((1296, 968), 58)[None], (1296, 968))
    np.testing.assert_allclose(wide.fitted((64, 64)).intrinsics[0], pinhole((64, 64), 58))


def test_cameras_of_two_sizes_do_not_join():
    with pytest.raises(DataError, match="one image size"):
        join(front((4, 4)), front((5, 4)))


def test_a_point_lands_on_the_pixel_whose_centre_it_projects_to():
    result = draw([[0.5 / 10 * 2, -1.5 / 10 * 2, 2.0]], front())  # u = 9.5 + 0.5, v = 4.5 - 1.5
    assert np.argwhere(result.index[0] == 0).tolist() == [[3, 10]]
    assert result.depth[0, 3, 10] == 2
    assert result.rgb[0, 3, 10].tolist() == [1, 2, 3]
    assert (result.index == NOTHING).sum() == 20 * 10 - 1
    assert result.depth.sum() == 2


def test_the_nearer_point_wins_in_either_order():
    for points in ([[0, 0, 2], [0, 0, 1]], [[0, 0, 1], [0, 0, 2]]):
        result = draw(points, front(), radius=1)
        assert set(np.unique(result.depth)) == {0, 1}


def test_of_equally_deep_points_the_first_wins():
    assert draw([[0, 0, 1]] * 5, front(), radius=1).index.max() == 0


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_a_splat_is_a_square(radius):
    result = draw([[0.05, 0.05, 1]], front())
    assert (draw([[0.05, 0.05, 1]], front((40, 40)), radius=radius).index == 0).sum() == (2 * radius + 1) ** 2
    assert (result.index == 0).sum() == 1


@pytest.mark.parametrize(
    ("point", "pixels"),
    [
        ([-0.95, -0.45, 1], 4),
        ([0.95, 0.45, 1], 4),
        ([-1.05, 0.05, 1], 3),
        ([-1.15, 0.05, 1], 0),
        ([0, 0, -1], 0),
        ([0, 0, 0], 0),
        ([0, 0, 0.04], 0),
        ([1e30, 0, 1], 0),
        ([np.nan, 0, 1], 0),
        ([0, 0, np.inf], 0),
    ],
    ids=[
        "top left",
        "bottom right",
        "just outside",
        "outside",
        "behind",
        "at the eye",
        "too near",
        "far",
        "nan",
        "inf",
    ],
)
def test_borders_and_points_that_are_not_there(point, pixels):
    assert (draw([point], front(), radius=1).index == 0).sum() == pixels


@pytest.mark.slow
def test_a_stage_renders_on_fewer_threads_than_there_are_cores():
    script = (
        "from test_views import draw, front\n"
        "from r1pipe.stages.runner import seed_everything\n"
        "seed_everything(0, 1)\n"
        "assert draw([[0, 0, 1]], front(), radius=1).index.max() == 0"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parent)


def test_an_empty_cloud_renders_nothing():
    result = draw([], front(count=2))
    assert (result.index == NOTHING).all()
    assert result.rgb.shape == (2, 10, 20, 3)


def test_renderer_agrees_with_painting_from_far_to_near():
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(3000, 3)).astype(np.float32) * 2
    rgb = rng.integers(0, 256, (3000, 3), dtype=np.uint8)
    cameras = Cameras(
        look_at(rng.normal(size=(3, 3)), np.array([0.5, 0, 0])), np.tile(pinhole((40, 30), 75), (3, 1, 1)), (40, 30)
    )
    result = render(xyz, rgb, cameras, radius=1)
    uv, depth = cameras.project(xyz)
    for v in range(3):
        index = np.full((32 + 8, 42 + 8), NOTHING)
        for p in np.lexsort((-np.arange(3000), -depth[v])):
            column, row = np.floor(np.nan_to_num(uv[v, p], nan=-99) + 0.5)
            if depth[v, p] > 0.05 and -1 <= column <= 40 and -1 <= row <= 30:
                index[int(row) + 1 : int(row) + 4, int(column) + 1 : int(column) + 4] = p
        index = index[2:32, 2:42]
        assert (index == result.index[v]).mean() > 0.999  # a rounded depth may swap two points
        seen = result.index[v] >= 0
        np.testing.assert_allclose(result.depth[v][seen], depth[v][result.index[v][seen]], rtol=1e-5)
        assert (result.rgb[v][seen] == rgb[result.index[v][seen]]).all()
        assert (result.rgb[v][~seen] == 0).all()


@pytest.mark.parametrize("frames", [None, front((640, 480), 500.0, 2), front((640, 480), 500.0, 9)])
def test_every_scene_has_the_same_number_of_candidates(frames):
    cameras = candidates(box_room(), RENDER, frames).cameras
    assert len(cameras) == num_candidates(RENDER) == 9
    assert cameras.size == RENDER.size


def test_of_real_frames_those_join_that_lie_farthest_apart():
    frames = front((640, 480), 500.0, 9)
    frames.poses[:, 0, 3] = [0, 0, 0, 0, 0.1, 0.2, 0, 3, 5]
    assert candidates(box_room(), RENDER, frames).cameras.poses[-3:, 0, 3].tolist() == [0, 3, 5]
    turned = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    frames.poses[:, 0, 3], frames.poses[6, :3, :3] = np.linspace(0, 1, 9), turned
    np.testing.assert_array_equal(candidates(box_room(), RENDER, frames).cameras.poses[-2, :3, :3], turned)


def test_frames_at_one_pose_join_all_the_same():
    assert len(candidates(box_room(), RENDER, front((640, 480), 500.0, 9)).cameras) == num_candidates(RENDER)


def test_candidates_stand_inside_the_room_at_eye_height_and_see_it():
    scene = box_room()
    cameras = candidates(scene, RENDER).cameras
    eyes = np.delete(cameras.poses[:, :3, 3], RENDER.num_ring, axis=0)
    assert (np.abs(eyes[:, :2] - [10, 20]) < [3, 2]).all()
    np.testing.assert_allclose(eyes[:, 2], 1.5, atol=0.05)
    views = render_scene(scene, RENDER)
    red = (views.rgb == [255, 0, 0]).all(axis=-1).any(axis=(1, 2))
    assert red.mean() > 0.6


def test_the_ceiling_does_not_block_the_top_view():
    views = render_scene(box_room(), RENDER)
    top = views.rgb[RENDER.num_ring]
    assert not (top == 255).all(axis=-1).any()
    assert (top == [255, 0, 0]).all(axis=-1).sum() > 10
    np.testing.assert_array_equal(views.index[RENDER.num_ring] >= 0, views.depth[RENDER.num_ring] > 0)


def test_views_come_back_as_saved_and_the_file_is_the_same_twice(tmp_path):
    views = render_scene(box_room(), RENDER)
    views.save(tmp_path)
    first = (tmp_path / "room_00.safetensors").read_bytes()
    loaded = Views.load(tmp_path, "room_00")
    loaded.save(tmp_path)
    assert (tmp_path / "room_00.safetensors").read_bytes() == first
    np.testing.assert_array_equal(loaded.index, views.index)
    assert loaded.cameras.size == RENDER.size
    with pytest.raises(MissingError, match="room_01"):
        Views.load(tmp_path, "room_01")


def test_damaged_views_are_an_error(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot read"):
        Views.load(tmp_path, "a")


def test_scores_are_the_cosines_of_the_paper():
    images = np.eye(3, 4, dtype=np.float32)
    points = np.eye(3, 4, dtype=np.float32)[[1, 0, 2]]
    coverage = np.array([0.5, 0.3, 0.0], np.float32)
    texts = np.array([[1, 0, 0, 0], [0, 0.6, 0.8, 0]], np.float32)
    scores = view_scores(images, points, coverage, texts)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[0, :, 0], [0, 1, 0])
    np.testing.assert_allclose(scores[1, :, 0], [0.6, 0, 0.8])
    np.testing.assert_allclose(scores[:, :, 1], [np.array([0.5, 0.3, 0]) / 3] * 2, rtol=1e-6)
    np.testing.assert_allclose(scores[1, :, 2], [0, 0.6, 0.8])
    np.testing.assert_array_equal(view_scores(images, points, coverage, texts[1]), scores[1])


def test_scores_of_embeddings_that_do_not_belong_together_are_an_error():
    with pytest.raises(DataError, match="width C"):
        view_scores(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.ones(3, np.float32), np.ones(4))


def test_coverage_counts_what_a_view_adds_greedily():
    index = np.array([[[0, 1, 1]], [[0, 1, 2]], [[3, 2, -1]], [[-1, -1, -1]]], np.int32)
    np.testing.assert_allclose(greedy_coverage(index, 5), [0, 0.6, 0.2, 0])


def test_equal_views_count_once_and_the_first_one_does():
    np.testing.assert_allclose(greedy_coverage(np.zeros((3, 2, 2), np.int32), 4), [0.25, 0, 0])


def test_a_point_is_the_mean_over_the_views_that_see_it():
    # Two views of 2x4 pixels with 1x2 patches: in view 0, point 0 has three pixels left and one right.
    index = np.full((2, 2, 4), -1, np.int32)
    index[0, :, :2] = [[0, 0], [0, 1]]
    index[0, 0, 2] = 0
    index[1, 1, 3] = 0
    patches = np.arange(2 * 1 * 2 * 2, dtype=np.float32).reshape(2, 1, 2, 2)
    lifted = lift(patches, index, 3)
    in_view_0 = 0.75 * patches[0, 0, 0] + 0.25 * patches[0, 0, 1]
    np.testing.assert_allclose(lifted[0], (in_view_0 + patches[1, 0, 1]) / 2)
    np.testing.assert_allclose(lifted[1], patches[0, 0, 0])
    np.testing.assert_array_equal(lifted[2], 0)


def test_a_view_is_the_mean_of_its_visible_points():
    rng = np.random.default_rng(0)
    index = rng.integers(-1, 40, (5, 12, 16)).astype(np.int32)
    index[4] = -1
    patches = rng.normal(size=(5, 3, 4, 7)).astype(np.float32)
    lifted = lift(patches, index, 40)
    embedded = embed_visible(patches, index, 40)
    for v in range(4):
        mean = lifted[np.unique(index[v][index[v] >= 0])].mean(axis=0)
        np.testing.assert_allclose(embedded[v], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_array_equal(embedded[4], 0)
