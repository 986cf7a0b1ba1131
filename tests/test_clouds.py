"""What a cloud must be, one bad one a row, and what its colours may look like in a file."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from r1pipe.datasets.ply import read_vertices
from r1pipe.errors import DataError, ModelError
from r1pipe.models.encoders.cloud import voxelise
from r1pipe.scenes.scene import Scene


def cloud(count=4, **changed):
    arrays = {
        "xyz": np.arange(3 * count, dtype=np.float32).reshape(count, 3),
        "rgb": np.zeros((count, 3), np.uint8),
        "instance": np.full(count, -1, np.int32),
    }
    return arrays | changed


def xyz(*values):
    return np.array(values, np.float32).reshape(-1, 3)


CLOUDS = {
    "empty": (cloud(0), "Expected xyz as float32 of some points in scene a_00, found float32 (0, 3)."),
    "NaN": (cloud(2, xyz=xyz(0, 0, 0, 1, np.nan, 1)), "found NaN or infinity in 1 of 2 points, the first at row 1."),
    "infinity": (cloud(1, xyz=xyz(0, 0, -np.inf)), "found NaN or infinity in 1 of 1 points, the first at row 0."),
    "millimetres": (cloud(2, xyz=xyz(0, 0, 0, 5120, 1, 1)), "at most 100 across, in scene a_00, found 5,120, as if in millimetres."),
    "overflow": (cloud(2, xyz=xyz(-3e38, 0, 0, 3e38, 1, 1)), "at most 100 across"),
    "colours of 0..1": (cloud(rgb=np.ones((4, 3), np.float32)), "Expected rgb as uint8 (4, 3) in scene a_00, found float32 (4, 3)."),
    "a colour too few": (cloud(rgb=np.zeros((3, 3), np.uint8)), "Expected rgb as uint8 (4, 3) in scene a_00, found uint8 (3, 3)."),
    "float64": (cloud(xyz=np.zeros((4, 3))), "Expected xyz as float32 (4, 3) in scene a_00, found float64 (4, 3)."),
    "flat": (cloud(xyz=np.zeros((4, 2), np.float32)), "found float32 (4, 2)."),
    "ids as text": (cloud(instance=np.array(list("abcd"))), "Expected instance as int32 (4,)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLOUDS)
def test_a_cloud_that_is_no_room_is_refused_wherever_it_comes_from(tmp_path, name):
    arrays, sentence = CLOUDS[name]
    with pytest.raises(DataError) as made:
        Scene("a_00", objects=(), **arrays)
    assert sentence in str(made.value)
    if arrays["instance"].dtype.kind == "i":
        save_file(
            {key: np.ascontiguousarray(value) for key, value in arrays.items()},
            tmp_path / "a_00.safetensors",
            {"objects": "[]"},
        )
        with pytest.raises(DataError) as loaded:
            Scene.load(tmp_path, "a_00")
        assert str(loaded.value) == str(made.value)


def test_more_voxels_than_there_are_codes_are_refused_with_both_numbers():
    rgb = np.zeros((2, 3), np.uint8)
    with pytest.raises(
        ModelError, match=r"at most 65,536 voxels along an axis, found 80,001: 80 m in voxels of 0\.001 m\.$"
    ):
        voxelise(xyz(0, 0, 0, 80, 1, 1), rgb, 0.001)
    assert voxelise(xyz(0, 0, 0, 65.535, 1, 1), rgb, 0.001).cell.max() == 65535


FIELDS = "".join(f"property float {name}\n" for name in ("x", "y", "z", "red", "green", "blue"))


def test_fractions_as_colours_of_a_mesh_are_read_as_what_they_mean(tmp_path):
    (tmp_path / "a.ply").write_text(
        f"ply\nformat ascii 1.0\nelement vertex 2\n{FIELDS}end_header\n" + "0 0 0 1 0.5 0\n" * 2
    )
    assert read_vertices(tmp_path / "a.ply").rgb[0].tolist() == [255, 128, 0]
