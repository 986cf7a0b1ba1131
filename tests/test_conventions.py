"""The conventions of `views.cameras`, by hand and on the real posed frames; those tests skip where the files are absent."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.scannet import read_scan
from r1pipe.geometry import Box
from r1pipe.views.cameras import Cameras
from r1pipe.views.renderer import NOTHING, render

DATA = Path(__file__).parents[2] / "shared" / "data"
SCENE = "scene0000_00"
QUARTER = (324, 242)
real = pytest.mark.skipif(not (DATA / "frames").is_dir(), reason=f"no real data at {DATA}")


def test_a_point_lands_where_a_pencil_puts_it():
    # At (1, 2, 1.5), looking along +x: right is -y and down is -z. The point is 1 m right, 1 m down and 4 m ahead.
    pose = np.array([[0, 0, 1, 1], [-1, 0, 0, 2], [0, -1, 0, 1.5], [0, 0, 0, 1]], float)
    intrinsics = np.array([[100, 0, 50], [0, 120, 40], [0, 0, 1]], float)
    cameras, point = Cameras(pose[None], intrinsics[None], (100, 90)), np.array([[5, 1, 0.5]])
    uv, depth = cameras.project(point)
    assert uv.tolist() == [[[75, 70]]] and depth.tolist() == [[4]]
    picture = render(point, np.array([[1, 2, 3]], np.uint8), cameras, radius=0)
    assert np.argwhere(picture.index != NOTHING).tolist() == [[0, 70, 75]]
    assert picture.depth[0, 70, 75] == 4


@pytest.mark.parametrize("position", [(0.5, 0.5), (0, 0), (0.2, 0.9)])
def test_a_point_keeps_its_share_of_the_picture_in_any_size(position):
    size, pose = np.array([640, 480]), np.eye(4)[None]
    intrinsics = np.array([[500, 0, 300], [0, 510, 250], [0, 0, 1]], float)
    cameras = Cameras(pose, intrinsics[None], (640, 480))
    uv = np.array(position) * size - 0.5
    ray = np.linalg.solve(intrinsics, [*uv, 1])[None]
    np.testing.assert_allclose(cameras.project(ray)[0][0, 0], uv)
    half = cameras.fitted((320, 240)).project(ray)[0][0, 0]
    np.testing.assert_allclose((half + 0.5) / (size / 2), position, atol=1e-12)


@pytest.fixture(scope="module")
def published():
    return json.loads((DATA / "frames" / f"{SCENE}.json").read_bytes())


@pytest.fixture(scope="module")
def cameras(published):
    poses = [np.array(published["axis_align_matrix"]) @ row["camera_to_world_unaligned"] for row in published["frames"]]
    intrinsics = np.tile(np.array(published["intrinsics"])[:3, :3], (len(poses), 1, 1))
    return Cameras(np.array(poses), intrinsics, tuple(published["image_size"]))


@pytest.fixture(scope="module")
def scene():
    labels = LabelMap.load(DATA / "scannet" / "meta" / "scannetv2-labels.combined.tsv")
    return read_scan(DATA / "scannet" / "scans", SCENE, labels).scene


@pytest.fixture(scope="module")
def pictures(scene, cameras):
    return render(scene.xyz, scene.rgb, cameras.fitted(QUARTER), radius=2, fill_holes=True)


def corners(box):
    """The eight corners `(8, 3)`."""
    return np.array(np.meshgrid(*zip(box.low, box.high, strict=True))).reshape(3, 8).T


@real
def test_all_boxes_project_into_all_frames_as_the_published_matrices_say(published, cameras):
    boxes = [Box(*row["box_aligned"]) for row in published["boxes"]]
    assert (len(boxes), len(cameras)) == (27, 3)
    xyz = np.concatenate([corners(box) for box in boxes])
    uv, depth = cameras.project(xyz)
    (fx, _, cx, _), (_, fy, cy, _) = published["intrinsics"][:2]
    back = np.linalg.inv(published["axis_align_matrix"])
    for frame, row in enumerate(published["frames"]):
        world_to_camera = np.linalg.inv(row["camera_to_world_unaligned"]) @ back
        x, y, z, _ = world_to_camera @ np.column_stack([xyz, np.ones(len(xyz))]).T
        np.testing.assert_allclose(depth[frame], z, atol=1e-4)  # published rotations have six digits
        ahead = z > 0.1
        np.testing.assert_allclose(uv[frame, ahead, 0], (fx * x / z + cx)[ahead], rtol=1e-4, atol=0.1)
        np.testing.assert_allclose(uv[frame, ahead, 1], (fy * y / z + cy)[ahead], rtol=1e-4, atol=0.1)


@real
def test_what_is_seen_of_every_object_is_where_its_box_is_seen(published, scene, cameras):
    small = cameras.fitted(QUARTER)
    picture = render(scene.xyz, scene.rgb, small, radius=0)
    seen = 0
    for row in published["boxes"]:
        box = Box(*row["box_aligned"])
        inside = np.append(((scene.xyz >= box.low) & (scene.xyz <= box.high)).all(axis=1), False)
        uv, depth = small.project(corners(box))
        for frame in np.flatnonzero((depth > 0.1).all(axis=1)):
            pixels = np.argwhere(inside[picture.index[frame]])[:, ::-1]
            depths = picture.depth[frame][inside[picture.index[frame]]]
            assert (pixels >= uv[frame].min(axis=0) - 0.51).all() and (pixels <= uv[frame].max(axis=0) + 0.51).all()
            assert (depths >= depth[frame].min() - 1e-3).all() and (depths <= depth[frame].max() + 1e-3).all()
            seen += len(pixels) > 0
    assert seen > 10


@real
@pytest.mark.parametrize("frame", range(3))
def test_a_picture_of_the_scan_lies_on_the_photograph(published, pictures, frame):
    photograph = Image.open(DATA / "frames" / published["frames"][frame]["file"]).convert("L").resize(QUARTER)
    theirs, ours = np.asarray(photograph, float), pictures.rgb[frame] @ [0.299, 0.587, 0.114]
    seen = pictures.index[frame] != NOTHING
    assert seen.mean() > 0.8

    def agreement(image):
        return np.corrcoef(image[seen], ours[seen])[0, 1]

    moved = [np.roll(theirs, (down, right), (0, 1)) for down in (-12, 0, 12) for right in (-12, 0, 12) if down or right]
    turned = [theirs[::-1], theirs[:, ::-1], theirs[::-1, ::-1]]
    assert agreement(theirs) > 0.6
    assert agreement(theirs) > max(map(agreement, moved + turned)) + 0.1
