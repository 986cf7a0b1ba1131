"""Filling holes: no background through a surface, and no surface beyond its edge."""

import numpy as np
import pytest
from test_renderer import around, assert_equal, cloud
from tiny_room import RENDER, box_room

from r1pipe.views.cameras import Cameras
from r1pipe.views.renderer import NOTHING, render
from r1pipe.views.views import render_scene

SIZE = (60, 50)
FOCAL = 50.0


@pytest.fixture(params=["numba", "torch"])
def backend(request):
    return request.param


def camera(size=SIZE, margin=0):
    """A camera at the origin, right, down and forward the world's x, y and z; `margin` pixels more on every side."""
    intrinsics = np.array([[FOCAL, 0, (size[0] - 1) / 2 + margin], [0, FOCAL, (size[1] - 1) / 2 + margin], [0, 0, 1]])
    return Cameras(np.eye(4)[None], intrinsics[None], (size[0] + 2 * margin, size[1] + 2 * margin))


def at(pixels_P2, depth):
    """Points `(P, 3)` that lie so deep behind these (column, row)."""
    uv_P2 = np.asarray(pixels_P2, float).reshape(-1, 2) - (np.array(SIZE) - 1) / 2
    depth_P1 = np.broadcast_to(depth, len(uv_P2))[:, None]
    return np.concatenate([uv_P2 * depth_P1 / FOCAL, depth_P1], axis=1)


def grid(step, jitter=0.0, beyond=20):
    """Pixels `(P, 2)` every `step`, some of them outside the image, each moved at random by no more than `jitter`."""
    columns, rows = (np.arange(-beyond, length + beyond, step) for length in SIZE)
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(float)
    return pixels + np.random.default_rng(0).uniform(-jitter, jitter, pixels.shape)


def draw(front_P3, back_P3, backend, **options):
    """The picture, and in which pixels `front` is seen."""
    xyz = np.concatenate([front_P3, back_P3]).astype(np.float32)
    rgb = np.repeat([[200, 0, 0], [255, 255, 255]], [len(front_P3), len(back_P3)], axis=0).astype(np.uint8)
    picture = render(xyz, rgb, camera(), backend=backend, **options)
    return picture, (picture.index[0] >= 0) & (picture.index[0] < len(front_P3))


@pytest.mark.parametrize("radius", [1, 2])
def test_no_background_shows_through_a_sparse_wall_up_to_the_border(radius, backend):
    front, back = at(grid(4 * radius, jitter=0.4), 2), at(grid(0.9), 4)
    assert draw(front, back, backend, radius=radius)[1].mean() < 0.7
    picture, in_front = draw(front, back, backend, radius=radius, fill_holes=True)
    assert in_front.all()
    assert (picture.rgb == [200, 0, 0]).all()
    assert (picture.depth == 2).all()


@pytest.mark.parametrize("radius", [1, 2])
def test_empty_pixels_of_a_sparse_wall_are_filled_too(radius, backend):
    front = at(grid(4 * radius, jitter=0.4), 2)
    assert draw(front, front[:0], backend, radius=radius, fill_holes=True)[1].all()


@pytest.mark.parametrize("angle", range(0, 360, 15))
@pytest.mark.parametrize("back", [at(grid(0.9), 4), np.empty((0, 3))], ids=["wall", "nothing"])
def test_a_silhouette_keeps_its_background(angle, back, backend):
    radius, normal = 1, np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    pixels, middle = grid(4, jitter=0.4), (np.array(SIZE) - 1) / 2
    front = at(pixels[(pixels - middle) @ normal <= 0], 2)
    plain, filled = (draw(front, back, backend, radius=radius, fill_holes=fill) for fill in (False, True))
    beyond = ((np.moveaxis(np.indices(SIZE), 0, -1) - middle) @ normal).T
    # Where a splat ends whose centre is on the edge: half a pixel for its rounding, and its radius.
    edge = np.abs(normal).sum() * (radius + 0.5) + 1e-9
    outside = beyond > edge
    assert outside.mean() > 0.3
    np.testing.assert_array_equal(filled[0].index[0][outside], plain[0].index[0][outside])
    assert not filled[1][outside].any()
    assert filled[1][beyond < -6].all()


@pytest.mark.parametrize("back", [at(grid(1), 4), np.empty((0, 3))], ids=["wall", "nothing"])
def test_a_solid_block_does_not_grow(back, backend):
    front = at([(column, row) for column in range(20, 31) for row in range(10, 22)], 2)
    plain, filled = (draw(front, back, backend, radius=1, fill_holes=fill)[0] for fill in (False, True))
    assert_equal(plain, filled)


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("wider", [0, 1])
def test_a_gap_is_closed_where_a_splat_would_fit_it_and_no_wider(radius, wider, backend):
    width = 2 * radius + 1 + wider
    pixels = grid(1)
    front = at(pixels[(pixels[:, 0] <= 29 - radius) | (pixels[:, 0] >= 30 + width + radius)], 2)
    in_front = draw(front, at(pixels, 4), backend, radius=radius, fill_holes=True)[1]
    assert (in_front.all(axis=0) == in_front.any(axis=0)).all()
    assert (~in_front[0]).sum() == (width if wider else 0)


@pytest.mark.parametrize(("depth", "is_hole"), [(2.09, False), (2.11, True), (1.9, False)])
def test_a_hole_is_deeper_than_its_surface_by_a_twentieth(depth, is_hole, backend):
    pixels = grid(1)
    in_front = draw(at(pixels[(pixels != (30, 20)).any(axis=1)], 2), at([(30, 20)], depth), backend, radius=0)[1]
    assert in_front.sum() == SIZE[0] * SIZE[1] - 1
    filled = draw(
        at(pixels[(pixels != (30, 20)).any(axis=1)], 2), at([(30, 20)], depth), backend, radius=0, fill_holes=True
    )[1]
    assert filled[20, 30] == is_hole


def test_what_stands_before_the_surface_does_not_grow_into_its_holes(backend):
    pixels = grid(1)
    is_pole, is_hole = pixels[:, 0] >= 31, (pixels == (30, 20)).all(axis=1)
    xyz = at(pixels, np.where(is_pole, 1.0, 2.0))[~is_hole].astype(np.float32)
    picture = render(xyz, np.zeros((len(xyz), 3), np.uint8), camera(), radius=0, fill_holes=True, backend=backend)
    assert picture.depth[0, 20, 29:32].tolist() == [2, 2, 1]


@pytest.mark.parametrize("height", [0.02, 0.3, 1.5])
def test_a_slanted_surface_stays_as_it_is_however_steep(height, backend):
    pixels = grid(1)
    pixels = pixels[pixels[:, 1] > SIZE[1] / 2]
    floor = at(pixels, height * FOCAL / (pixels[:, 1] - (SIZE[1] - 1) / 2)).astype(np.float32)
    colours = np.zeros((len(floor), 3), np.uint8)
    plain, filled = (
        render(floor, colours, camera(), radius=0, fill_holes=fill, backend=backend) for fill in (False, True)
    )
    assert (plain.index != NOTHING).mean() > 0.3
    assert_equal(plain, filled)


def test_a_filled_picture_is_the_middle_of_a_larger_one(backend):
    front, back = at(grid(4, jitter=0.4), 2), at(grid(0.9), 4)
    xyz = np.concatenate([front[::2], back]).astype(np.float32)
    rgb = np.random.default_rng(0).integers(0, 256, (len(xyz), 3), dtype=np.uint8)
    small, large = (
        render(xyz, rgb, camera(margin=margin), radius=1, fill_holes=True, backend=backend) for margin in (0, 6)
    )
    np.testing.assert_array_equal(small.index, large.index[:, 6:-6, 6:-6])


@pytest.mark.parametrize("radius", [0, 1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_both_backends_fill_the_same_pixels_with_the_same_points(seed, radius):
    (xyz, rgb), cameras = cloud(seed), around(seed)
    plain = render(xyz, rgb, cameras, radius=radius, backend="numba")
    numba, torch = (
        render(xyz, rgb, cameras, radius=radius, fill_holes=True, backend=backend) for backend in ("numba", "torch")
    )
    assert_equal(numba, torch)
    assert (numba.index != plain.index).any()
    seen = numba.index != NOTHING
    assert seen[plain.index != NOTHING].all()
    assert (numba.depth <= plain.depth)[plain.index != NOTHING].all()
    np.testing.assert_array_equal(numba.rgb[seen], rgb[numba.index[seen]])


def test_the_stage_fills_holes_where_its_parameters_say_so():
    scene = box_room()
    plain, filled = (render_scene(scene, RENDER.model_copy(update={"fill_holes": fill})) for fill in (False, True))
    assert (filled.index == NOTHING).sum() < (plain.index == NOTHING).sum()
