"""How long the renderer takes for 8 views of 224 x 224 pixels of a 200,000-point room.

One baseline is the painter's algorithm in NumPy: sort by depth, write far points first, radius by shifted copies. It makes the
same pictures, which is checked before anything is timed. The other is Open3D's OffscreenRenderer, where it is installed
(`pip install open3d==0.19.0`; 0.20 needs Vulkan), which draws colour and depth but does not say which point a pixel shows.

Run: OMP_NUM_THREADS=2 python -m benchmarks.render
"""

import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from r1pipe.views.cameras import NEAR, Cameras, look_at, pinhole
from r1pipe.views.renderer import Rendering, render

NUM_POINTS, NUM_VIEWS, SIZE, RADIUS = 200_000, 8, (224, 224), 1
BUDGET_MS = 40
NUMBA, FILLED, PAINTER = "numba", "numba, holes filled", "painter's algorithm (NumPy)"


def room(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Walls, floor and forty blocks: positions and colours."""
    xyz = rng.uniform(size=(NUM_POINTS, 3))
    axis, side = rng.integers(0, 3, NUM_POINTS), rng.integers(0, 2, NUM_POINTS)
    xyz[np.arange(NUM_POINTS), axis] = side  # on the faces of a cube
    low = np.concatenate([[[-3, -3, 0]], np.column_stack([rng.uniform(-2.8, 2, (40, 2)), np.zeros(40)])])
    size = np.concatenate([[[6, 6, 2.6]], rng.uniform([0.3, 0.3, 0.4], [0.8, 0.8, 1.2], (40, 3))])
    owner = np.where(np.arange(NUM_POINTS) < NUM_POINTS // 2, 0, rng.integers(1, 41, NUM_POINTS))
    return (low[owner] + xyz * size[owner]).astype(np.float32), rng.integers(0, 256, (NUM_POINTS, 3), dtype=np.uint8)


def ring() -> Cameras:
    """Cameras on a circle that look across the room."""
    angle = np.arange(NUM_VIEWS) * 2 * np.pi / NUM_VIEWS
    eyes = np.column_stack([2 * np.cos(angle), 2 * np.sin(angle), np.full(NUM_VIEWS, 1.5)])
    return Cameras(look_at(eyes, np.array([0, 0, 0.8])), np.tile(pinhole(SIZE, 90), (NUM_VIEWS, 1, 1)), SIZE)


def paint(xyz_P3: NDArray[np.float32], rgb_P3: NDArray[np.uint8], cameras: Cameras, *, radius: int) -> Rendering:
    """The baseline: far points first, near points over them."""
    (width, height), count = cameras.size, len(cameras)
    index_VHW = np.full((count, height, width), -1, np.int32)
    depth_VHW = np.zeros((count, height, width), np.float32)
    uv_VP2, depth_VP = cameras.project(xyz_P3)
    steps = range(-radius, radius + 1)
    for view in range(count):
        pixel_P2 = np.floor(np.nan_to_num(uv_VP2[view], nan=-9e9) + 0.5)
        seen = (
            (depth_VP[view] > NEAR)
            & (pixel_P2 >= -radius).all(axis=1)
            & (pixel_P2 < np.array(SIZE) + radius).all(axis=1)
        )
        point = np.flatnonzero(seen)
        # All splat pixels of one point are neighbours in this order, so that an overlap is decided by depth alone.
        order = point[np.argsort(-depth_VP[view, point].astype(np.float32), kind="stable")]
        offset = np.array([(column, row) for row in steps for column in steps])
        pixel = (pixel_P2[order].astype(np.int64)[:, None] + offset).reshape(-1, 2)
        owner = np.repeat(order, len(offset))
        inside = ((pixel >= 0) & (pixel < np.array(SIZE))).all(axis=1)
        column, row = pixel[inside].T
        index_VHW[view, row, column] = owner[inside]
        hit = index_VHW[view] >= 0
        depth_VHW[view][hit] = depth_VP[view, index_VHW[view][hit]]
    rgb_VHW3 = np.where((index_VHW >= 0)[..., None], rgb_P3[index_VHW], np.uint8(0))
    return Rendering(rgb_VHW3, depth_VHW, index_VHW)


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall time of each call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def open3d_drawer(
    xyz_P3: NDArray[np.float32], rgb_P3: NDArray[np.uint8], cameras: Cameras
) -> Callable[[], NDArray[np.float32]]:
    """A call that draws colours and depths with Open3D, points as large as ours, and returns the depths `(V, H, W)`."""
    # EGL without a display or a GPU's device is Mesa's surfaceless platform.
    os.environ.setdefault("EGL_PLATFORM", "surfaceless")
    import open3d

    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz_P3.astype(np.float64)))
    cloud.colors = open3d.utility.Vector3dVector(rgb_P3 / 255)
    material = open3d.visualization.rendering.MaterialRecord()
    material.shader, material.point_size = "defaultUnlit", 2 * RADIUS + 1
    renderer = open3d.visualization.rendering.OffscreenRenderer(*cameras.size)
    renderer.scene.add_geometry("room", cloud, material)

    def draw() -> NDArray[np.float32]:
        depths = []
        for pose, intrinsics in zip(cameras.poses, cameras.intrinsics, strict=True):
            renderer.setup_camera(intrinsics, np.linalg.inv(pose), *cameras.size)
            renderer.render_to_image()
            depths.append(np.asarray(renderer.render_to_depth_image(z_in_view_space=True)).copy())
        return np.array(depths)

    return draw


def check(xyz_P3: NDArray[np.float32], rgb_P3: NDArray[np.uint8], cameras: Cameras) -> None:
    """Refuse to time what does not make the same pictures."""
    for fill in (False, True):
        ours, torchs = (
            render(xyz_P3, rgb_P3, cameras, radius=RADIUS, fill_holes=fill, backend=name) for name in ("numba", "torch")
        )
        if not all(np.array_equal(getattr(ours, name), getattr(torchs, name)) for name in ("index", "depth", "rgb")):
            raise SystemExit("Expected equal pictures from numba and torch, found others.")
    ours = render(xyz_P3, rgb_P3, cameras, radius=RADIUS, backend="numba")
    same = float((ours.index == paint(xyz_P3, rgb_P3, cameras, radius=RADIUS).index).mean())
    if same < 0.999:
        raise SystemExit(f"Expected the painter's pictures from the renderer, found {same:.1%} of the pixels equal.")
    print(f"pixels equal to the painter's: {same:.2%}; numba and torch: all")


def time_all(xyz_P3: NDArray[np.float32], rgb_P3: NDArray[np.uint8], cameras: Cameras) -> dict[str, list[float]]:
    """Wall times of every renderer there is here."""
    import torch

    draw = partial(render, xyz_P3, rgb_P3, cameras, radius=RADIUS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    rows = {
        NUMBA: milliseconds(lambda: draw(backend="numba"), 21),
        FILLED: milliseconds(lambda: draw(backend="numba", fill_holes=True), 21),
        f"torch, {device}": milliseconds(lambda: draw(backend="torch"), 11),
        f"torch, {device}, holes filled": milliseconds(lambda: draw(backend="torch", fill_holes=True), 11),
        PAINTER: milliseconds(lambda: paint(xyz_P3, rgb_P3, cameras, radius=RADIUS), 3),
    }
    if importlib.util.find_spec("open3d") is None:
        print("Open3D is not installed here: no row for it.")
        return rows
    library = open3d_drawer(xyz_P3, rgb_P3, cameras)
    ours_VHW = draw(backend="numba").depth
    near = np.isclose(library(), ours_VHW, rtol=0.01).mean()
    print(f"pixels whose depth Open3D has within 1 % of ours: {near:.1%}")
    rows["Open3D, no index"] = milliseconds(library, 5)
    return rows


def main() -> None:
    """Check that all make the same pictures, time them, print the table."""
    (xyz_P3, rgb_P3), cameras = room(np.random.default_rng(0)), ring()
    print(f"{NUM_VIEWS} views of {SIZE[0]}x{SIZE[1]}, {NUM_POINTS:,} points, radius {RADIUS}: RGB + depth + index")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    check(xyz_P3, rgb_P3, cameras)
    rows = time_all(xyz_P3, rgb_P3, cameras)
    base = statistics.median(rows[PAINTER])
    print(f"{'renderer':<32}{'median ms':>11}{'min ms':>10}{'ratio':>9}")
    for name, times in rows.items():
        median = statistics.median(times)
        print(f"{name:<32}{median:>11.1f}{min(times):>10.1f}{base / median:>8.1f}x")
    for name in (NUMBA, FILLED):
        verdict = "within" if statistics.median(rows[name]) <= BUDGET_MS else "OVER"
        print(f"budget {BUDGET_MS} ms, {name}: {verdict}")


if __name__ == "__main__":
    main()
