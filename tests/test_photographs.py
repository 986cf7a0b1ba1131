"""Real frames: their pictures lie on the points that they show, and what says nothing is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from tiny_room import RENDER, box_room

from r1pipe.datasets.frames import Frames, read_frames
from r1pipe.geometry import Box
from r1pipe.params.scenes import Render
from r1pipe.serving.rooms import Room
from r1pipe.serving.scans import read_scan
from r1pipe.views.cameras import Cameras, look_at, pinhole
from r1pipe.views.placement import num_candidates
from r1pipe.views.renderer import NOTHING, render
from r1pipe.views.views import render_scene

SHARED = Path(__file__).parents[2] / "shared" / "data"


def photographed(tmp_path, size, count=2):
    """Frames of the room whose pictures are its own renderings, as a scanner would have left them."""
    eyes = np.array([[8.5, 19, 1.5], [11.8, 21, 1.5], [9, 21, 1.4]])[:count]
    cameras = Cameras(look_at(eyes, np.array([10.5, 20, 0.6])), np.tile(pinhole(size, 75.0), (count, 1, 1)), size)
    scene = box_room()
    pictures = render(scene.xyz, scene.rgb, cameras, radius=3, fill_holes=True).rgb
    (tmp_path / "intrinsic").mkdir()
    for folder in ("color", "pose"):
        (tmp_path / folder).mkdir()
    lens = np.eye(4)
    lens[:3, :3] = cameras.intrinsics[0]
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", lens)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "color" / f"{number}.png")
        np.savetxt(tmp_path / "pose" / f"{number}.txt", cameras.poses[number])
    return scene, tmp_path


@pytest.mark.parametrize(
    ("size", "shown"),
    [((192, 128), 32), ((192, 192), 32), ((192, 64), 16)],
    ids=["of the same shape", "rows are cut", "rows are black"],
)
def test_a_photograph_lies_on_the_points_that_it_shows(tmp_path, size, shown):
    scene, scan = photographed(tmp_path, size)
    both = RENDER.model_copy(update={"source": "both"})
    taken = render_scene(scene, both, read_frames(scan, np.eye(4)))
    drawn = render_scene(scene, RENDER, read_frames(scan, np.eye(4)))
    assert taken.photographed.tolist() == [False] * 6 + [True, True, False] and not drawn.photographed.any()
    np.testing.assert_array_equal(taken.cameras.poses, drawn.cameras.poses)
    np.testing.assert_array_equal(taken.rgb[~taken.photographed], drawn.rgb[~taken.photographed])
    rows = slice(16 - shown // 2, 16 + shown // 2)
    for view in (6, 7):
        small = np.asarray(
            Image.open(scan / "color" / f"{view - 6}.png").resize((48, size[1] // 4), Image.Resampling.BOX)
        )
        cut = small[(len(small) - shown) // 2 :][:shown].astype(int)
        there, a_row_off = (np.abs(cut - np.roll(taken.rgb[view, rows], off, axis=0)).mean() for off in (0, 1))
        assert there < a_row_off / 2
        # Splats of the drawn picture reach a pixel farther, but not over the floor in front: the middle lies half a pixel up.
        seen, drew = ((rgb[view, rows, :, 0] > 150) & (rgb[view, rows, :, 1] < 100) for rgb in (taken.rgb, drawn.rgb))
        assert 0.6 * drew.sum() < seen.sum() <= drew.sum() > 40
        np.testing.assert_allclose(np.argwhere(seen).mean(axis=0), np.argwhere(drew).mean(axis=0) + [0.5, 0], atol=0.3)
        outside = np.delete(np.arange(32), np.arange(32)[rows])
        assert not taken.rgb[view, outside].any() and (taken.index[view, outside] == NOTHING).all()
        assert not taken.depth[view, outside].any()


def test_frames_alone_are_candidates_and_corners_stand_in_for_missing_ones(tmp_path):
    scene, scan = photographed(tmp_path, (192, 128))
    alone = RENDER.model_copy(update={"source": "frames"})
    views = render_scene(scene, alone, read_frames(scan, np.eye(4)))
    assert views.photographed.tolist() == [True, True, False] and num_candidates(alone) == 3
    assert render_scene(scene, alone).photographed.tolist() == [False] * 3
    with pytest.raises(ValidationError, match="max_frames of at least 1"):
        Render(**(alone.model_dump() | {"max_frames": 0}))


def test_frames_that_say_nothing_are_named_and_left_out(tmp_path):
    scene, scan = photographed(tmp_path, (192, 128), 3)
    extra = {3: (192, 128), 4: (192, 128), 5: (96, 64)}
    for number, size in extra.items():
        Image.new("RGB", size).save(scan / "color" / f"{number}.jpg")
        np.savetxt(scan / "pose" / f"{number}.txt", np.eye(4) if number != 3 else np.full((4, 4), -np.inf))
    whole = (scan / "color" / "4.jpg").read_bytes()
    (scan / "color" / "4.jpg").write_bytes(whole[: len(whole) // 2])
    (scan / "color" / "2.png").unlink()
    frames = read_frames(scan, np.eye(4), range(6))
    assert [path.name for path in frames.colour] == ["0.png", "1.png"]
    assert frames.left_out == (
        "frame 2: its picture is missing", "frame 3: its pose is lost", "frame 4: 4.jpg is damaged",
        "frame 5: 5.jpg is 96x64, its lens one of about 192x128",
    )  # fmt: skip
    assert render_scene(scene, RENDER.model_copy(update={"source": "both"}), frames).photographed.sum() == 2


def test_a_room_is_looked_at_in_its_photographs(tmp_path):
    scene, scan = photographed(tmp_path, (192, 128))
    views = render_scene(scene, RENDER.model_copy(update={"source": "both"}), read_frames(scan, np.eye(4)))
    seen = Room(scene, views).photographs([6, 0], (96, 64))
    small = np.asarray(Image.fromarray(seen[0]).resize((48, 32), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - views.rgb[6]).mean() < 3
    drawn = Room(scene, render_scene(scene, RENDER, read_frames(scan, np.eye(4)))).photographs([6, 0], (96, 64))
    assert (seen[0] != drawn[0]).any() and (seen[1] == drawn[1]).all()


def real_frames():
    path = SHARED / "frames" / "scene0000_00.json"
    if not path.is_file():
        pytest.skip("needs the posed frames of scene0000_00")
    value = json.loads(path.read_bytes())
    poses = [np.array(value["axis_align_matrix"]) @ frame["camera_to_world_unaligned"] for frame in value["frames"]]
    intrinsics = np.tile(np.array(value["intrinsics"])[:3, :3], (len(poses), 1, 1))
    return Cameras(np.array(poses), intrinsics, tuple(value["image_size"])), value


@pytest.mark.parametrize(
    ("frame", "name", "pixel"),
    [(0, "table", (820, 620)), (1, "garbagebin", (305, 680)), (1, "desk", (600, 400)), (2, "sofa", (690, 480))],
)
def test_boxes_project_to_where_the_photographs_show_them(frame, name, pixel):
    # The pixels are the objects' middles, read off the photographs by eye.
    cameras, value = real_frames()
    centres = np.array([row["box_aligned"][:3] for row in value["boxes"] if row["name"] == name])
    uv, depth = cameras.project(centres)
    assert np.linalg.norm(uv[frame][depth[frame] > 0] - pixel, axis=-1).min() < 60


@pytest.mark.parametrize(
    ("frame", "name", "pixel"),
    [(0, "table", (820, 620)), (1, "garbagebin", (305, 680)), (1, "desk", (600, 400)), (2, "sofa", (690, 480))],
)
def test_pixels_of_real_photographs_show_points_of_the_objects_that_are_there(frame, name, pixel):
    cameras, value = real_frames()
    folder = SHARED / "scannet" / "scans" / "scene0000_00"
    scene = read_scan(folder, voxel_size=0.02)
    numbers = tuple(SHARED / "frames" / row["file"] for row in value["frames"])
    frames = Frames(cameras.poses, cameras.intrinsics, cameras.size, numbers, ())
    params = RENDER.model_copy(update={"source": "frames", "size": (256, 192), "fill_holes": True})
    views = render_scene(scene, params, frames)
    assert views.photographed.all() and views.rgb[frame].std() > 20
    u, v = (round(axis * 256 / 1296) for axis in pixel)
    shown = views.index[frame, v - 3 : v + 4, u - 3 : u + 4]
    xyz = scene.xyz[shown[shown != NOTHING]]
    boxes = [Box(*row["box_aligned"]) for row in value["boxes"] if row["name"] == name]
    inside = [
        ((xyz > np.array(box.low) - 0.05) & (xyz < np.array(box.high) + 0.05)).all(axis=-1).mean() for box in boxes
    ]
    assert max(inside) > 0.5


def test_real_cameras_stand_in_their_room():
    cameras, value = real_frames()
    corners = np.array([[Box(*row["box_aligned"]).low, Box(*row["box_aligned"]).high] for row in value["boxes"]])
    eyes = cameras.poses[:, :3, 3]
    assert ((eyes > corners.min(axis=(0, 1))) & (eyes < corners.max(axis=(0, 1)))).all()
    assert ((eyes[:, 2] > 1) & (eyes[:, 2] < 2)).all()
