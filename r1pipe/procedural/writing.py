"""Files of a scan and of annotations, byte for byte in the layouts of ScanNet and of the benchmarks."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from r1pipe.params.section import Split
from r1pipe.procedural.annotations.rows import Annotations, Row
from r1pipe.procedural.furniture import KINDS, NYU40
from r1pipe.procedural.scan import Frames, Scan

_SQA3D_FIRST_ID = 220602000000
"""SQA3D's question ids are the day of the release followed by a number."""

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])

_PLY_HEADER = """ply
format binary_little_endian 1.0
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property uchar alpha
element face 0
property list uchar int vertex_indices
end_header
"""


def write_scan(folder: Path, scan: Scan) -> None:
    """The four files of a scan, and its frames, under `folder/<scene_id>/`."""
    path = folder / scan.id
    path.mkdir(parents=True, exist_ok=True)
    (path / f"{scan.id}_vh_clean_2.ply").write_bytes(_ply(scan))
    _write_json(path / f"{scan.id}_vh_clean_2.0.010000.segs.json", _segments(scan))
    _write_json(path / f"{scan.id}.aggregation.json", _aggregation(scan))
    (path / f"{scan.id}.txt").write_text(_info(scan), encoding="utf-8")
    if scan.frames is not None:
        _write_frames(path / "frames", scan.frames)


def _ply(scan: Scan) -> bytes:
    vertices = np.empty(len(scan.xyz), dtype=_VERTEX)
    vertices["xyz"] = scan.xyz
    vertices["rgba"][:, :3] = scan.rgb
    vertices["rgba"][:, 3] = 255
    return _PLY_HEADER.format(count=len(vertices)).encode("ascii") + vertices.tobytes()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _segments(scan: Scan) -> dict[str, Any]:
    return {"params": {}, "sceneId": f"scannet.{scan.id}", "segIndices": scan.segment.tolist()}


def _aggregation(scan: Scan) -> dict[str, Any]:
    groups = [
        {"id": i, "objectId": i, "segments": np.unique(scan.segment[scan.instance == i]).tolist(), "label": label}
        for i, label in enumerate(scan.labels)
    ]
    name = f"scannet.{scan.id}"
    return {
        "sceneId": name,
        "appId": "Aggregator.v2",
        "segGroups": groups,
        "segmentsFile": f"{name}_vh_clean_2.0.010000.segs.json",
    }


def _info(scan: Scan) -> str:
    """`<scene_id>.txt`, keys in ScanNet's order; those of the frames only where there are frames."""
    values: dict[str, str] = {"axisAlignment": " ".join(f"{value:.6f}" for value in scan.alignment.ravel())}
    if scan.frames is not None:
        (width, height), matrix = scan.frames.cameras.size, scan.frames.cameras.intrinsics[0]
        for kind in ("color", "depth"):
            values |= {f"{kind}Height": str(height), f"{kind}Width": str(width)}
            values |= {f"fx_{kind}": f"{matrix[0, 0]:.6f}", f"fy_{kind}": f"{matrix[1, 1]:.6f}"}
            values |= {f"mx_{kind}": f"{matrix[0, 2]:.6f}", f"my_{kind}": f"{matrix[1, 2]:.6f}"}
        count = str(len(scan.frames.cameras))
        values |= {"numColorFrames": count, "numDepthFrames": count}
    values["sceneType"] = scan.scene_type
    return "".join(f"{key} = {values[key]}\n" for key in sorted(values))


def _write_frames(path: Path, frames: Frames) -> None:
    """Frames as ScanNet's `SensorData` exporter lays them out; depth in millimetres."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (path / name).mkdir(parents=True, exist_ok=True)
    for i, (rgb, depth) in enumerate(zip(frames.rendering.rgb, frames.rendering.depth, strict=True)):
        Image.fromarray(rgb).save(path / "color" / f"{i}.jpg", quality=92)
        Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(path / "depth" / f"{i}.png")
        _write_matrix(path / "pose" / f"{i}.txt", frames.cameras.poses[i])
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = frames.cameras.intrinsics[0]
    for kind in ("color", "depth"):
        _write_matrix(path / "intrinsic" / f"intrinsic_{kind}.txt", intrinsic)
        _write_matrix(path / "intrinsic" / f"extrinsic_{kind}.txt", np.eye(4))


def _write_matrix(path: Path, matrix: NDArray[np.float64]) -> None:
    path.write_text("".join(" ".join(f"{value:.6f}" for value in row) + "\n" for row in matrix), encoding="utf-8")


def write_meta(folder: Path, scene_ids: Mapping[Split, Sequence[str]]) -> None:
    """The label map, with the columns that readers use, and the list of scenes of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("wall", 1), ("floor", 2), *((kind.label, kind.nyu40) for kind in KINDS)]
    header = ("id", "raw_category", "category", "nyu40id", "nyu40class")
    lines = [header, *((str(i), label, label, str(nyu40), NYU40[nyu40]) for i, (label, nyu40) in enumerate(rows, 1))]
    text = "".join("\t".join(line) + "\n" for line in lines)
    (folder / "scannetv2-labels.combined.tsv").write_text(text, encoding="utf-8")
    for split, ids in scene_ids.items():
        (folder / f"scannetv2_{split}.txt").write_text("".join(f"{i}\n" for i in ids), encoding="utf-8")


def write_annotations(folder: Path, rooms: Mapping[Split, Sequence[Annotations]]) -> None:
    """The benchmarks' files of all splits, one folder a benchmark."""
    for name in ("scanrefer", "nr3d", "multi3drefer", "scanqa", "sqa3d", "threedllm"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    first_id = _SQA3D_FIRST_ID
    for split, annotations in rooms.items():
        rows = {f.name: [row for room in annotations for row in getattr(room, f.name)] for f in fields(Annotations)}
        _write_json(folder / "scanrefer" / f"ScanRefer_filtered_{split}.json", rows["scanrefer"])
        _write_json(folder / "multi3drefer" / f"multi3drefer_{split}.json", rows["multi3drefer"])
        _write_json(folder / "scanqa" / f"ScanQA_v1.0_{split}.json", rows["scanqa"])
        _write_sqa3d(folder / "sqa3d", split, rows["sqa3d_questions"], rows["sqa3d_annotations"], first_id)
        first_id += len(rows["sqa3d_questions"])
        for task in (
            "embodied_dialogue_filtered",
            "embodied_planning_filtered",
            "embodied_question_answer",
            "scene_description",
        ):
            _write_json(folder / "threedllm" / f"3d_llm_{task}_{split}.json", rows[task.removesuffix("_filtered")])
    _write_nr3d(folder / "nr3d" / "nr3d.csv", [row for split in rooms.values() for room in split for row in room.nr3d])


def _write_sqa3d(folder: Path, split: Split, questions: list[Row], annotations: list[Row], first_id: int) -> None:
    info = {"description": "Procedural rooms in the format of SQA3D.", "version": "1.0"}
    head = {"info": info, "data_type": "scannet", "data_subtype": "v2"}
    for name, key, rows in (("questions", "questions", questions), ("sqa_annotations", "annotations", annotations)):
        numbered = [row | {"question_id": first_id + i} for i, row in enumerate(rows)]
        _write_json(folder / f"v1_balanced_{name}_{split}_scannetv2.json", head | {key: numbered})


def _write_nr3d(path: Path, rows: list[Row]) -> None:
    if not rows:
        path.write_text("", encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["assignmentid", *rows[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"assignmentid": i} | row for i, row in enumerate(rows, 1))
