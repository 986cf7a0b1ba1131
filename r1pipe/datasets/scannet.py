"""A ScanNet v2 scan: four published files in, one aligned scene with exact boxes out.

Shape suffixes: P points, S segments, 44 rigid matrices. Frame of a scene: metres, z up, axis-aligned.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from r1pipe.datasets.labels import LabelMap
from r1pipe.datasets.ply import read_vertices
from r1pipe.datasets.rows import parse
from r1pipe.errors import DataError, MissingError
from r1pipe.files import read_json
from r1pipe.geometry import Box, transform
from r1pipe.scenes.scene import NO_INSTANCE, Scene, SceneObject

MESH, AGGREGATION, SEGMENTS, INFO = "_vh_clean_2.ply", ".aggregation.json", "_vh_clean_2.0.010000.segs.json", ".txt"
"""How the names of a scan's files end; each begins with the scan's id."""


class Scan(NamedTuple):
    """A scene, and where its raw files have it."""

    scene: Scene
    alignment: NDArray[np.float64]
    """`(4, 4)`, from the frame of the files to the frame of the scene."""

    raw_centre: tuple[float, float, float]
    """Middle of the mesh's bounds in the frame of the files, metres; the origin of SQA3D's positions."""


class _Group(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    objectId: int  # noqa: N815 - the published key
    label: str
    segments: list[int]


class _Aggregation(BaseModel):
    segGroups: list[_Group]  # noqa: N815 - the published key


def scan_files(folder: Path, scene_id: str, *, annotated: bool = True) -> list[Path]:
    """The files of a scan that a scene is read from."""
    endings = (MESH, AGGREGATION, SEGMENTS, INFO) if annotated else (MESH, INFO)
    return [folder / scene_id / f"{scene_id}{ending}" for ending in endings]


def read_scan(scans: Path, scene_id: str, labels: LabelMap, *, annotated: bool = True) -> Scan:
    """Read `<scans>/<scene_id>/`: every vertex, every annotated object, walls, floor and ceiling among them.

    Vertices are aligned in float64 and kept as float32; a box is the minimum and maximum over all vertices of the
    object's segments (VoteNet's definition, `batch_load_scannet_data.py`).

    Args:
        scans: the folder of all scans.
        scene_id: which of them.
        labels: raw label to NYU40.
        annotated: False for ScanNet's test scans, which come without segments and without an alignment; their scene
            has no objects and stays as scanned.

    Raises:
        MissingError: if a file is not there.
        DataError: if a file does not hold what its format promises, or two of them contradict each other.
    """
    mesh, *annotations, info = scan_files(scans, scene_id, annotated=annotated)
    vertices = read_vertices(mesh)
    alignment_44 = read_alignment(info, required=annotated)
    xyz_P3 = transform(vertices.xyz, alignment_44).astype(np.float32)
    instance_P, objects = (
        _objects(xyz_P3, *annotations, labels=labels)
        if annotated
        else (np.full(len(xyz_P3), NO_INSTANCE, np.int32), ())
    )
    centre = (vertices.xyz.min(axis=0) + vertices.xyz.max(axis=0)) / 2
    scene = Scene(scene_id, xyz_P3, vertices.rgb, instance_P, objects)
    return Scan(scene, alignment_44, tuple(centre.tolist()))


def read_alignment(path: Path, *, required: bool = True) -> NDArray[np.float64]:
    """The rigid `(4, 4)` axisAlignment of a scan's `.txt`; the identity where it has none and none is required.

    Raises:
        MissingError: if there is no such file.
        DataError: if the line is missing, or its 16 numbers are no rigid motion.
    """
    if not path.is_file():
        raise MissingError(f"Expected a scan's text file at {path}, found none.")
    match = re.search(r"^axisAlignment\s*=(.*)$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if match is None and not required:
        return np.eye(4)
    if match is None:
        raise DataError(f"Expected a line 'axisAlignment = <16 numbers>' in {path}, found none.")
    return _rigid(match[1].split(), f"axisAlignment in {path}")


def _rigid(words: Sequence[str], where: str) -> NDArray[np.float64]:
    """The matrix written in 16 words, row by row."""
    try:
        matrix_44 = np.array(words, np.float64).reshape(4, 4)
    except ValueError:
        raise DataError(f"Expected 16 numbers as {where}, found {len(words)} words {' '.join(words)[:60]!r}.") from None
    rotation_33 = matrix_44[:3, :3]
    # Published matrices are rounded to six digits.
    rigid = np.allclose(rotation_33 @ rotation_33.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation_33) > 0
    if not (np.isfinite(matrix_44).all() and rigid and np.allclose(matrix_44[3], (0, 0, 0, 1))):
        raise DataError(f"Expected a rotation and a translation as {where}, found {matrix_44.round(3).tolist()}.")
    return matrix_44


def _objects(
    xyz_P3: NDArray[np.float32], aggregation: Path, segments: Path, *, labels: LabelMap
) -> tuple[NDArray[np.int32], tuple[SceneObject, ...]]:
    """The object id of each vertex, and the objects by id."""
    ids_S, segment_P = np.unique(_segments(segments, len(xyz_P3)), return_inverse=True)
    order_P = np.argsort(segment_P, kind="stable")
    starts_S = np.searchsorted(segment_P[order_P], np.arange(len(ids_S)))
    low_S3 = np.minimum.reduceat(xyz_P3[order_P], starts_S, axis=0)
    high_S3 = np.maximum.reduceat(xyz_P3[order_P], starts_S, axis=0)
    owner_S = np.full(len(ids_S), NO_INSTANCE, np.int32)
    objects = []
    for group in _groups(aggregation):
        rows = _rows(group, ids_S, aggregation)
        owner_S[rows] = group.objectId  # a segment that two objects claim belongs to the later one, as in ScanNet
        # A box of its own segments, not of what `owner` leaves: scene0217_00 lists its objects twice.
        corners_23 = np.stack([low_S3[rows].min(axis=0), high_S3[rows].max(axis=0)]).astype(np.float64)
        objects.append(SceneObject(group.objectId, group.label, labels.nyu40(group.label), Box.around(corners_23)))
    return owner_S[segment_P], tuple(sorted(objects))


def _segments(path: Path, num_vertices: int) -> NDArray[np.int64]:
    value = read_json(path)
    indices = value.get("segIndices") if isinstance(value, dict) else None
    if not isinstance(indices, list) or len(indices) != num_vertices:
        found = f"{len(indices)}" if isinstance(indices, list) else "no such list"
        raise DataError(f"Expected segIndices of {num_vertices} vertices in {path}, found {found}.")
    segment_P = _integers(indices)
    if segment_P is None:
        raise DataError(f"Expected whole numbers as segIndices in {path}, found others.")
    return segment_P


def _integers(values: list[Any]) -> NDArray[np.int64] | None:
    if set(map(type, values)) - {int}:
        return None
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return None


def _groups(path: Path) -> list[_Group]:
    groups = parse(_Aggregation, read_json(path), f"{path}").segGroups
    ids = [group.objectId for group in groups]
    if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
        raise DataError(f"Expected every objectId once, from 0 on, in {path}, found {ids[:20]}.")
    return groups


def _rows(group: _Group, ids_S: NDArray[np.int64], path: Path) -> NDArray[np.intp]:
    """Where the object's segments stand in the sorted list of all."""
    if not group.segments:
        raise DataError(f"Expected segments of object {group.objectId} in {path}, found none.")
    unknown = sorted(set(group.segments) - set(ids_S.tolist()))
    if unknown:
        raise DataError(
            f"Expected segments that the scan's .segs.json has for object {group.objectId} in {path}, "
            f"found {unknown[:5]}."
        )
    return np.searchsorted(ids_S, np.array(group.segments, np.int64))
