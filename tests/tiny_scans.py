"""A folder in ScanNet's layout with three tiny scans, for tests: two chairs and a table on a floor."""

import json
from pathlib import Path

import numpy as np

IDS = {"train": "scene0000_00", "val": "scene0011_00", "test": "scene0707_00"}
ABSENT = {"train": "scene0099_00", "val": "scene0098_00", "test": "scene0097_00"}
"""Scenes of the lists that are not on the disk."""

ALIGNMENT = [[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, -0.5], [0.0, 0.0, 0.0, 1.0]]
"""A quarter turn and a shift."""

OBJECTS = (("floor", (0.0, 0.0, 0.0), (4.0, 4.0, 0.1)), ("chair", (0.5, 0.5, 0.1), (0.5, 0.5, 1.0)),
           ("chair", (3.0, 3.0, 0.1), (0.5, 0.5, 1.0)), ("table", (1.5, 2.0, 0.1), (1.0, 0.8, 0.7)))  # fmt: skip
"""Label, low corner and size in the frame of the files, metres."""

LABELS = (
    "id\traw_category\tnyu40id\tnyu40class\n1\tfloor\t2\tfloor\n2\tchair\t5\tchair\n3\toffice chair\t5\tchair\n"
    "4\ttable\t7\ttable\n5\tlamp\t35\tlamp\n6\tbook shelf\t10\tbookshelf\n7\ttv\t25\ttelevision\n"
)


def corners(low, size):
    return np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * size + low


def ply(xyz, *, count=None, extra=b""):
    fields = [(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    rows = np.zeros(len(xyz), fields)
    for i, name in enumerate("xyz"):
        rows[name] = np.asarray(xyz)[:, i]
    rows["red"] = np.arange(len(xyz))
    kinds = {"<f4": "float", "u1": "uchar"}
    properties = "".join(f"property {kinds[kind]} {name}\n" for name, kind in fields)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {count or len(xyz)}\n{properties}end_header\n"
    return head.encode() + rows.tobytes() + extra


def write_scan(scans: Path, scene_id: str) -> Path:
    folder = scans / scene_id
    folder.mkdir(parents=True)
    xyz = np.concatenate([corners(low, size) for _, low, size in OBJECTS] + [[[2.0, 2.0, 2.0]]])
    (folder / f"{scene_id}_vh_clean_2.ply").write_bytes(ply(xyz))
    # Two segments an object, ids with gaps; the last vertex belongs to no object.
    segments = [10 * (i // 8) + (i % 8) // 4 for i in range(len(xyz) - 1)] + [999]
    groups = [
        {"id": i, "objectId": i, "segments": [10 * i, 10 * i + 1], "label": label}
        for i, (label, _, _) in enumerate(OBJECTS)
    ]
    write(folder / f"{scene_id}_vh_clean_2.0.010000.segs.json", {"sceneId": scene_id, "segIndices": segments})
    write(folder / f"{scene_id}.aggregation.json", {"sceneId": f"scannet.{scene_id}", "segGroups": groups})
    numbers = " ".join(str(v) for row in ALIGNMENT for v in row)
    (folder / f"{scene_id}.txt").write_text(f"axisAlignment = {numbers}\ncolorHeight = 968\n")
    return folder


def write(path: Path, value) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def write_root(root: Path) -> Path:
    for split, scene_id in IDS.items():
        write_scan(root / "scans", scene_id)
        write(root / "meta" / f"scannetv2_{split}.txt", f"{scene_id}\n{ABSENT[split]}\n")
    write(root / "meta" / "scannetv2-labels.combined.tsv", LABELS)
    return root
