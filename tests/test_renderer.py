"""The renderer's two backends make the same pictures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from r1pipe.views import renderer, splat_torch
from r1pipe.views.cameras import Cameras, look_at, pinhole
from r1pipe.views.renderer import NOTHING, render


def cloud(seed, count=5000):
    """Points all around the cameras, some exactly twice, some not finite, some absurdly far."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(count, 3)).astype(np.float32) * [3, 3, 1]
    xyz = xyz.astype(np.float32)
    xyz[count // 2 : count // 2 + count // 5] = xyz[: count // 5][::-1]
    odd = [
        [np.nan, 0, 0],
        [0, np.inf, 0],
        [0, 0, -np.inf],
        [3e38, 3e38, 3e38],
        [-3e38, 3e38, 1],
        [1e30, 0, 1],
        [0, 0, 0],
    ]
    xyz[-len(odd) :] = odd
    return xyz, rng.integers(0, 256, (count, 3), dtype=np.uint8)


def around(seed, size=(40, 30), count=5):
    """Cameras amid the points, each with a near plane of its own."""
    rng = np.random.default_rng(seed)
    poses = look_at(rng.normal(size=(count, 3)), np.array([0.5, 0, 0]))
    intrinsics = np.stack([pinhole(size, fov) for fov in np.linspace(40, 120, count)])
    return Cameras(poses, intrinsics, size, rng.uniform(0, 0.5, count))


def assert_equal(one, other):
    for name in ("index", "depth", "rgb"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name, strict=True)


@pytest.mark.parametrize("radius", [0, 1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_both_backends_make_the_same_pictures(seed, radius):
    (xyz, rgb), cameras = cloud(seed), around(seed)
    numba, torch = (render(xyz, rgb, cameras, radius=radius, backend=backend) for backend in ("numba", "torch"))
    assert (numba.index != NOTHING).any()
    assert_equal(numba, torch)


@pytest.mark.parametrize(("num_points", "num_cameras"), [(0, 3), (100, 0)])
def test_both_backends_draw_nothing_where_there_is_nothing(num_points, num_cameras):
    (xyz, rgb), cameras = cloud(0), around(0).take(np.arange(num_cameras))
    for backend in ("numba", "torch"):
        picture = render(xyz[:num_points], rgb[:num_points], cameras, radius=1, backend=backend)
        assert picture.rgb.shape == (num_cameras, 30, 40, 3)
        assert (picture.index == NOTHING).all()


def test_of_equally_deep_points_the_first_wins_in_both_backends():
    cameras = Cameras(np.eye(4)[None], pinhole((9, 9), 60)[None], (9, 9))
    xyz, rgb = np.tile(np.array([[0, 0, 1]], np.float32), (50, 1)), np.arange(150, dtype=np.uint8).reshape(-1, 3)
    for backend in ("numba", "torch"):
        assert render(xyz, rgb, cameras, radius=1, backend=backend).index.max() == 0


def test_pictures_do_not_depend_on_how_much_torch_draws_at_once(monkeypatch):
    (xyz, rgb), cameras = cloud(7), around(7)
    whole = render(xyz, rgb, cameras, radius=2, backend="torch")
    for at_once in (1_000, 40 * 30 * 4):
        monkeypatch.setattr(splat_torch, "_AT_ONCE", at_once)
        assert_equal(render(xyz, rgb, cameras, radius=2, backend="torch"), whole)


def test_rendering_without_a_driver_for_a_gpu_does_not_import_torch():
    script = (
        "import sys\n"
        "import numpy as np\n"
        "from r1pipe.views import renderer\n"
        "from r1pipe.views.cameras import Cameras, pinhole\n"
        "renderer._DRIVERS = ()\n"
        "cameras = Cameras(np.eye(4)[None], pinhole((4, 4), 60)[None], (4, 4))\n"
        "renderer.render(np.ones((1, 3)), np.ones((1, 3), np.uint8), cameras, radius=0)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(("driver", "cuda", "backend"), [(0, 1, "numba"), (1, 0, "numba"), (1, 1, "torch")])
def test_torch_draws_where_there_is_a_driver_and_torch_finds_the_gpu(monkeypatch, tmp_path, driver, cuda, backend):
    monkeypatch.setattr(renderer, "_DRIVERS", (tmp_path / "none", tmp_path) if driver else ())
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(cuda))
    renderer._fastest.cache_clear()
    try:
        assert renderer._fastest() == backend
    finally:
        renderer._fastest.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("fill_holes", [False, True])
@pytest.mark.parametrize("radius", [0, 1, 2])
def test_a_gpu_draws_what_the_cpu_draws(radius, fill_holes):
    assert renderer._fastest() == "torch"
    (xyz, rgb), cameras = cloud(11, 1_000_000), around(11, (224, 224), 8)
    gpu, cpu = (
        render(xyz, rgb, cameras, radius=radius, fill_holes=fill_holes, backend=backend) for backend in (None, "numba")
    )
    assert_equal(gpu, cpu)
