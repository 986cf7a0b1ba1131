"""SQA3D: questions of an agent who stands somewhere in the scene and looks somewhere.

Published positions are metres from the middle of the *unaligned* mesh's bounds, and the agent looks along -x of its own
frame (`utils/visualize_data.py` of the authors). Ours are in the aligned scene frame, and it looks along +y. The
published yaws confirm the frame: turned by each scene's alignment they cluster at the walls' directions (mean resultant
length at four-fold symmetry 0.81), unturned they do not (0.20).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field
from scipy.spatial.transform import Rotation

from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.rows import Row, json_rows
from r1pipe.datasets.sample import Pose, Sample
from r1pipe.errors import DataError
from r1pipe.geometry import FloatArray, transform

TYPES = ("what", "is", "how", "can", "which")
"""Question types by prefix, in the order of the official evaluation; all else is `other`."""

_AHEAD = Rotation.from_euler("z", 90, degrees=True)
"""Turns +y, our forward, to -x, theirs."""


class Situation(Row):
    """A row of `v1_balanced_questions_<split>_scannetv2.json`, under `questions`."""

    scene_id: str
    question_id: int
    situation: str
    question: str


class _Answer(Row):
    answer: str


class _Position(Row):
    x: float
    y: float
    z: float


class _Rotation(Row):
    model_config = ConfigDict(extra="ignore", frozen=True)

    x: float = Field(alias="_x")
    y: float = Field(alias="_y")
    z: float = Field(alias="_z")
    w: float = Field(alias="_w")


class Annotation(Row):
    """A row of `v1_balanced_sqa_annotations_<split>_scannetv2.json`, under `annotations`."""

    scene_id: str
    question_id: int
    answers: tuple[_Answer, ...] = Field(min_length=1)
    position: _Position
    rotation: _Rotation


def read(paths: Sequence[Path], catalog: Catalog) -> Iterator[Sample]:
    """A situated sample a question: the situation comes before the question, the pose beside it.

    Args:
        paths: questions and annotations, told apart by `questions` in the file's name.
        catalog: the scenes.

    Raises:
        DataError: if a row is malformed, a question has no annotation or another scene's, or its scene is unknown.
    """
    annotations = {
        (row.scene_id, row.question_id): row
        for _, row in json_rows([p for p in paths if "questions" not in p.name], Annotation, key="annotations")
    }
    for where, row in json_rows([p for p in paths if "questions" in p.name], Situation, key="questions"):
        annotation = annotations.get((row.scene_id, row.question_id))
        if annotation is None:
            raise DataError(
                f"Expected an annotation of question {row.question_id} of {row.scene_id} ({where}), found none among "
                f"{len(annotations)}."
            )
        sample = _sample(row, annotation, where, catalog)
        if sample is not None:
            yield sample


def _sample(row: Situation, annotation: Annotation, where: str, catalog: Catalog) -> Sample | None:
    room = catalog.room(row.scene_id, where)
    if room is None:
        return None
    return Sample(
        id=f"sqa3d-{row.scene_id}-{row.question_id}",
        scene_id=row.scene_id,
        task="situated",
        question=f"{row.situation.strip()} {row.question.strip()}",
        answers=tuple(dict.fromkeys(answer.answer.strip() for answer in annotation.answers)),
        pose=scene_pose(annotation, room.alignment, room.raw_centre, where),
        tags=(question_type(row.question),),
        source="sqa3d",
        split=room.split,
    )


def question_type(question: str) -> str:
    """The type of a question, by its first letters.

    >>> question_type(" Which way is the door?")
    'which'
    """
    text = question.lstrip().lower()
    return next((name for name in TYPES if text.startswith(name)), "other")


def scene_pose(annotation: Annotation, alignment_44: FloatArray, raw_centre: Sequence[float], where: str) -> Pose:
    """Where the agent is and looks, in the aligned scene frame.

    Raises:
        DataError: if the rotation is no unit quaternion.
    """
    position, rotation = annotation.position, annotation.rotation
    quaternion = np.array([rotation.x, rotation.y, rotation.z, rotation.w])
    if not np.isclose(np.linalg.norm(quaternion), 1, atol=1e-3):
        raise DataError(f"Expected a unit quaternion as rotation in {where}, found {quaternion.tolist()}.")
    raw_13 = np.add([[position.x, position.y, position.z]], raw_centre)
    x, y, z = transform(raw_13, alignment_44)[0].tolist()
    turned = Rotation.from_matrix(alignment_44[:3, :3]) * Rotation.from_quat(quaternion) * _AHEAD
    return Pose(position=(x, y, z), rotation=tuple((turned.as_quat(canonical=True) + 0.0).tolist()))


def published_pose(
    pose: Pose, alignment_44: FloatArray, raw_centre: Sequence[float]
) -> tuple[dict[str, float], dict[str, float]]:
    """A pose as SQA3D publishes it: `position` and `rotation` of an annotation; the inverse of `scene_pose`."""
    raw_13 = transform(np.array([pose.position]), np.linalg.inv(alignment_44)) - np.asarray(raw_centre)
    turned = Rotation.from_matrix(alignment_44[:3, :3]).inv() * Rotation.from_quat(pose.rotation) * _AHEAD.inv()
    quaternion = turned.as_quat(canonical=True).tolist()
    position = dict(zip("xyz", raw_13[0].tolist(), strict=True))
    return position, dict(zip(("_x", "_y", "_z", "_w"), quaternion, strict=True))
