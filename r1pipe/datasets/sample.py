"""A sample: a scene, a question, and what counts as a right answer."""

import hashlib

from pydantic import BaseModel, ConfigDict

from r1pipe.geometry import Box
from r1pipe.params.section import Split, Task


class Pose(BaseModel):
    """Where the agent of SQA3D stands and looks: metres, scene frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    """Quaternion (x, y, z, w); the agent looks along +y of its own frame, as SQA3D has it."""


class Sample(BaseModel):
    """One question about one scene."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """Unique over all sources: `<source>-<the source's own id>`."""

    scene_id: str
    task: Task
    question: str
    """Objects are named by their annotation ids, `<obj_007>`."""

    answers: tuple[str, ...] = ()
    """Every textual reference; none where the answer is a box."""

    object_ids: tuple[int, ...] = ()
    """The annotated objects that the answer points at, or that the caption describes."""

    boxes: tuple[Box, ...] = ()
    """Their boxes, in the same order: metres, scene frame."""

    pose: Pose | None = None
    history: tuple[str, ...] = ()
    """Earlier turns of a dialogue, oldest first, the user's and the assistant's in turn."""

    tags: tuple[str, ...] = ()
    """`unique` or `multiple`, `easy` or `hard`, `view-dependent`, the question's type; sorted."""

    source: str
    """The dataset: scanrefer, nr3d, sr3d, multi3drefer, scanqa, sqa3d, 3dllm, scan2cap, scene30k, scannet."""

    split: Split


def lot(name: str) -> bytes:
    """Where a name stands in a draw: sorted by it, the first few are the same ones whatever else is in the data."""
    return hashlib.sha256(name.encode()).digest()
