"""Scans of every kind are read; what is damaged or made to harm is refused in a sentence, and the server lives."""

import gzip
import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest
from scan_files import SCANS, archive, bomb, box, cloud, locked, npz, ply
from tiny_serving import QUESTIONS, client_of, scene, served_model

from r1pipe.errors import DataError
from r1pipe.scenes.thin import thin
from r1pipe.serving import rooms, scans
from r1pipe.serving.answer import BusyError
from r1pipe.serving.rooms import MAX_TAKING_IN

MUTANTS_A_FILE = 64


def decode(content, name, voxel_size=0.02):
    return scans.decode_scan(scans.open_scan(content, name), voxel_size=voxel_size)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_model(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client(served):
    return client_of(served)


def upload(client, name, content):
    return client.post("/answer", files={"scene": (name, content)}, data={"question": QUESTIONS[0]})


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "zipped"])
def test_a_scan_of_every_kind_is_read(name, zipped):
    content = SCANS[name]
    read = decode(gzip.compress(content), f"{name}.gz") if zipped else decode(content, name)
    assert read.id == scans.open_scan(content, name).id
    if name.endswith((".glb", ".obj")):
        size = np.ptp(read.xyz, axis=0)
        np.testing.assert_allclose(size, (0.8, 0.6, 0.5) if name.endswith(".glb") else (0.8, 0.5, 0.6), atol=0.01)
        assert len(read.xyz) > 5000  # every 2 cm of 2.36 square metres
        np.testing.assert_allclose(read.rgb.astype(int), np.tile([200, 30, 30], (len(read.xyz), 1)), atol=6)
    else:
        room = thin(scene(num_points=2000 if name.endswith(".npz") else 1000), 0.02)
        np.testing.assert_array_equal(read.xyz, room.xyz)
        np.testing.assert_array_equal(read.rgb, room.rgb)


def glb(change):
    """The red box with its JSON changed."""
    content = SCANS["coloured.glb"]
    length = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + length])
    change(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + content[20 + length :]
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def member(shape, dtype="<f4"):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def vertices(count, kind="float"):
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n"
    return (head + "".join(f"property {kind} {name}\n" for name in ("x", "y", "z", "red", "green", "blue"))).encode()


HEADER = b"ply\nformat ascii 1.0\n"
HOSTILE = {
    "gzip bomb": ("room.ply.gz", bomb(201_000_000), "at most 200,000,000 bytes"),
    "gzip twice": ("room.ply.gz", gzip.compress(gzip.compress(SCANS["little.ply"])), "PLY header"),
    "no gzip": ("room.ply.gz", SCANS["little.ply"], "gzip file"),
    "cut gzip": ("room.ply.gz", gzip.compress(SCANS["little.ply"])[:-9], "gzip file"),
    "zip bomb": ("room.npz", archive({"xyz.npy": bytes(201_000_000), "rgb.npy": b""}), "at most 200,000,000 bytes of xyz"),
    "array of a trillion": ("room.npz", archive({n: member((10**12, 3)) for n in ("xyz.npy", "rgb.npy")}), "at most 5,000,000"),
    "array of less than nothing": ("room.npz", archive({n: member((-5, 3)) for n in ("xyz.npy", "rgb.npy")}), "at most 5,000,000"),
    "pickle": ("room.npz", npz(xyz=np.array([[{}] * 3] * 300, object), rgb=np.zeros((300, 3))), "Expected numbers in xyz"),
    "header of code": ("room.npz", archive({n: member("__import__('os')") for n in ("xyz.npy", "rgb.npy")}), "Expected"),
    "path outside": ("room.npz", archive({"../../xyz.npy": b"", "rgb.npy": b""}), "arrays xyz and rgb"),
    "name that leads outside": ("../../etc/room.ply", b"ply", "PLY header in room.ply"),
    "locked zip": ("room.npz", locked(SCANS["room.npz"]), "NumPy archive"),
    "unknown compression": ("room.npz", archive({"xyz.npy": b"1" * 99, "rgb.npy": b""}, zipfile.ZIP_LZMA), "NumPy archive"),
    "vertices of a trillion": ("room.ply", vertices(10**12) + b"end_header\n", "bytes"),
    "vertices of many digits": ("room.ply", vertices("9" * 5000) + b"end_header\n", "<count>"),
    "vertices below zero": ("room.ply", vertices(-1) + b"end_header\n", "<count>"),
    "six million vertices": ("room.ply", vertices(6_000_000, "uchar") + b"end_header\n" + bytes(36_000_000), "at most 5,000,000"),
    "endless header": ("room.ply", HEADER + b"comment\n" * 20_000 + b"end_header\n", "PLY header"),
    "unknown type": ("room.ply", vertices(1, "quadruple") + b"end_header\n" + bytes(99), "property <type>"),
    "property of nothing": ("room.ply", HEADER + b"property float x\nend_header\n", "below an element"),
    "two formats": ("room.ply", HEADER + b"format ascii 1.0\nend_header\n", "one format"),
    "a name twice": ("room.ply", vertices(1) + b"property float x\nend_header\n" + bytes(99), "twice"),
    "lists before the vertices": (
        "room.ply",
        HEADER + b"element face 1\nproperty list uchar int vertex_indices\n" + vertices(1)[len(HEADER) + 15 :] + b"end_header\n3 0 0 0\n0 0 0 0 0 0\n",
        "lists",
    ),
    "words for numbers": ("room.ply", ply("ascii").replace(b"\n0", b"\nnil", 1), "line of numbers"),
    "NaN": ("room.npz", npz(xyz=np.full((200, 3), np.nan), rgb=np.zeros((200, 3))), "finite"),
    "beyond float32": ("room.npz", npz(xyz=np.full((200, 3), 1e300), rgb=np.zeros((200, 3))), "finite"),
    "no glTF": ("room.glb", b"glTF", "glTF 2.0"),
    "glTF of another version": ("room.glb", SCANS["coloured.glb"].replace(b"glTF\x02", b"glTF\x01"), "glTF 2.0"),
    "glTF of zeros": ("room.glb", glb(lambda d: d["accessors"][1].pop("bufferView")), "bufferView"),
    "glTF of a billion": ("room.glb", glb(lambda d: d["accessors"][1].update(count=10**9)), "vertices"),
    "glTF beyond itself": ("room.glb", glb(lambda d: d["meshes"][0]["primitives"][0]["attributes"].update(POSITION=99)), "reference"),
    "glTF with a file": ("room.glb", glb(lambda d: d.update(buffers=[{"uri": "/etc/passwd", "byteLength": 9}] * 2)), "buffers"),
    "glTF below zero": ("room.glb", glb(lambda d: d["bufferViews"][0].update(byteOffset=-4)), "byteOffset"),
    "glTF shown a million times": (
        "room.glb", glb(lambda d: d.update(nodes=[*d["nodes"], *[{"mesh": 0}] * 10**4])), "2000 items"
    ),
    "glTF that is its own parent": (
        "room.glb", glb(lambda d: d.update(nodes=[{"children": [1, 1], "mesh": 0}, {"children": [0]}])), "one parent"
    ),
    "glTF of views": ("room.glb", glb(lambda d: d["bufferViews"][0].update(byteLength=10**9)), "arrays of at most"),
    "glTF without rooms": ("room.glb", glb(lambda d: d.update(meshes=[], nodes=[])), "mesh in room.glb"),
    "OBJ without colours": ("room.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n" * 50, "colour at each vertex"),
    "OBJ beyond itself": ("room.obj", b"v 0 0 0 1 1 1\n" * 3 + b"f 1 2 900\n", "mesh in room.obj"),
    "OBJ of six million": ("room.obj", b"v\n" * 5_000_001, "at most 5,000,000"),
    "OBJ of words": ("room.obj", b"v a b c\nf x\n", "mesh in room.obj"),
    "another kind": ("room.py", b"import os", ".ply, .npz, .glb, .obj"),
    "no name": ("", b"ply", "Expected a"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_made_to_harm_is_refused_in_a_sentence(name):
    filename, content, words = HOSTILE[name]
    with pytest.raises(DataError) as error:
        decode(content, filename)
    assert words in str(error.value)
    assert str(error.value).endswith(".") and "/" not in str(error.value).replace("[", "").split("Expected")[0]


CHANGES = (
    lambda rng, data, at, span: data.__setitem__(at, data[at] ^ 1 << rng.randrange(8)),
    lambda rng, data, at, span: data.__setitem__(slice(at, at + span), rng.randbytes(span)),
    lambda rng, data, at, span: data.__delitem__(slice(at, at + span)),
    lambda rng, data, at, span: data.__setitem__(slice(at, at), data[at : at + span]),
    lambda rng, data, at, span: data.__setitem__(slice(at, at + 4), rng.choice(NUMBERS)),
    lambda rng, data, at, span: data.__delitem__(slice(at, None)),
)
"""A bit, bytes, less, more, a number, the end."""

NUMBERS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"9999", b"-1  ", b"nan ")


def mutant(rng, content):
    """A copy with some changes, most of them near the header, which says most."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = int(rng.expovariate(1 / 200)) if rng.random() < 0.7 else rng.randrange(len(content))
        if data:
            rng.choice(CHANGES)(rng, data, min(len(data) - 1, at), rng.choice((1, 2, 4, 40)))
    return bytes(data)


@pytest.mark.slow
def test_the_server_outlives_five_hundred_damaged_scans(client, served, monkeypatch):
    # What is still a scan is not encoded: the tests of that are others.
    monkeypatch.setattr(served.rooms, "_encoded", lambda scene_id, read: read() and "room0000_00")
    rng = random.Random(0)
    statuses = {}
    for name, content in SCANS.items():
        for _ in range(MUTANTS_A_FILE):
            response = upload(client, name, mutant(rng, content))
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            if response.status_code != 200:
                assert response.status_code == 422, (name, response.text)
                detail = response.json()["detail"]
                assert detail.startswith("Expected") and detail.endswith(".") and name in detail, detail
                assert "Traceback" not in detail and "/tmp" not in detail
    assert sum(statuses.values()) == MUTANTS_A_FILE * len(SCANS) >= 500
    assert statuses[422] >= 300
    assert upload(client, "room.npz", cloud()).status_code == 200


def test_a_scan_is_encoded_once_zipped_or_not(client, served, monkeypatch):
    encoded = []
    monkeypatch.setattr(rooms, "render_scene", lambda *a, real=rooms.render_scene: encoded.append(1) or real(*a))
    content = cloud(1234)
    first, again = (upload(client, "room.npz", content).json() for _ in range(2))
    zipped = upload(client, "other.npz.gz", gzip.compress(content)).json()
    assert first["scene_id"] == again["scene_id"] == zipped["scene_id"]
    assert len(encoded) == 1


def test_scans_beyond_those_that_fit_in_memory_are_told_to_come_again(client, served):
    with pytest.raises(BusyError), served.rooms.slot(), served.rooms.slot(), served.rooms.slot(), served.rooms.slot():
        response = upload(client, "room.npz", cloud())
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        with served.rooms.slot():
            pass
    assert MAX_TAKING_IN == 4
    assert upload(client, "room.npz", cloud()).status_code == 200


def test_a_textured_box_has_its_textures_colour_and_order_is_the_files():
    data = io.BytesIO(box(textured=True).export(file_type="glb")).getvalue()
    first, second = decode(data, "a.glb"), decode(data, "b.glb")
    np.testing.assert_array_equal(first.xyz, second.xyz)
