"""The tiny room of `tiny_serving` as a file of every kind that is read, for tests."""

import gzip
import io
import zipfile

import numpy as np
import trimesh
from PIL import Image
from tiny_serving import scene

NAMES = ("x", "y", "z", "red", "green", "blue")


def npz(compressed=False, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def cloud(num_points=2000):
    room = scene(num_points=num_points)
    return npz(xyz=room.xyz, rgb=room.rgb)


def ply(layout, *, line="\n", faces=0, num_points=1000):
    room = scene(num_points=num_points)
    kinds = ["float"] * 3 + ["uchar"] * 3
    head = ["ply", f"format {layout} 1.0", "comment end_header is not here", f"element vertex {num_points}"]
    head += [f"property {kind} {name}" for kind, name in zip(kinds, NAMES, strict=True)]
    head += [f"element face {faces}", "property list uchar int vertex_indices"] if faces else []
    text = line.join([*head, "end_header", ""]).encode()
    if layout == "ascii":
        rows = [" ".join(map(str, [*xyz, *rgb])) for xyz, rgb in zip(room.xyz.tolist(), room.rgb.tolist(), strict=True)]
        return text + line.join([*rows, *["3 0 1 2"] * faces, ""]).encode()
    order = "<" if layout == "binary_little_endian" else ">"
    rows = np.zeros(num_points, [(name, order + ("f4" if name in "xyz" else "u1")) for name in NAMES])
    for i, name in enumerate(NAMES):
        rows[name] = (room.xyz if i < 3 else room.rgb)[:, i % 3]
    return text + rows.tobytes() + (b"\x03" + bytes(12)) * faces


def box(textured=False):
    """A box of 80 x 60 x 50 cm, y up; red, or with a texture that is red."""
    mesh = trimesh.creation.box((0.8, 0.5, 0.6))
    if textured:
        image = Image.new("RGB", (8, 8), (200, 30, 30))
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        mesh.visual = trimesh.visual.TextureVisuals(np.random.default_rng(0).random((8, 2)), material)
    else:
        mesh.visual.vertex_colors = np.tile([200, 30, 30, 255], (8, 1)).astype(np.uint8)
    return mesh


def bomb(size):
    """Zeros that unzip to `size` bytes."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9) as zipped:
        for _ in range(size // 1_000_000):
            zipped.write(bytes(1_000_000))
    return file.getvalue()


def locked(content):
    """A zip archive whose members say that they have a password."""
    data = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + offset] |= 1
    return bytes(data)


def archive(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return file.getvalue()


SCANS = {
    "ascii.ply": ply("ascii"),
    "ascii_faces.ply": ply("ascii", faces=5, line="\r\n"),
    "little.ply": ply("binary_little_endian"),
    "big.ply": ply("binary_big_endian", faces=7),
    "room.npz": cloud(),
    "coloured.glb": box().export(file_type="glb"),
    "textured.glb": box(textured=True).export(file_type="glb"),
    "room.obj": box().export(file_type="obj").encode(),
}
"""By name: files that are read."""
