"""What one asks a server, and what it says."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from r1pipe.datasets.sample import Pose
from r1pipe.geometry import Box
from r1pipe.params import Task

Question = Annotated[str, Field(min_length=1, max_length=2000)]
Turn = Annotated[str, Field(max_length=2000)]


class Ask(BaseModel):
    """A question about a room."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    scene_id: str
    """One of `GET /scenes`."""

    question: Question
    """It may name detected objects by their identifiers, `<obj_003>`."""

    task: Task | None = None
    """Left out: `situated` with a pose, `dialogue` with a history, else `qa`."""

    pose: Pose | None = None
    history: Annotated[tuple[Turn, ...], Field(max_length=50)] = ()
    """Earlier turns, oldest first, the user's and the model's in turn."""

    @field_validator("history")
    @classmethod
    def _ends_with_the_model(cls, history: tuple[str, ...]) -> tuple[str, ...]:
        if len(history) % 2:
            raise ValueError(f"expected the user's and the model's turns in pairs, found {len(history)} turns")
        return history

    @property
    def kind(self) -> Task:
        """The task, guessed where it was left out."""
        if self.task is not None:
            return self.task
        if self.pose is not None:
            return "situated"
        return "dialogue" if self.history else "qa"


class Mention(BaseModel):
    """A detected object that question, reasoning or answer names."""

    id: str
    """Its identifier, `<obj_003>`."""

    label: str
    score: float
    box: Box


class ViewScore(BaseModel):
    """A candidate view and what the selector made of it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    view: int
    camera: list[list[float]]
    """Camera to world; columns right, down, forward, position; metres, scene frame."""

    chosen: bool
    text3d: float
    image3d: float
    clip: float
    utility: float


class Answer(BaseModel):
    """What the model said, and what it looked at."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    scene_id: str
    task: Task
    question: str
    thinking: str
    """Empty where the task answers without reasoning."""

    answer: str
    boxes: list[Box]
    """What the answer points at, `cx, cy, cz, dx, dy, dz`; metres, scene frame."""

    objects: list[Mention]
    """Every object that question, reasoning or answer names."""

    views: list[ViewScore]
    model: str
    warnings: list[str]
    """What to know before trusting the answer."""

    timings: dict[str, float]
    """Seconds of each part: the request received (and its scan encoded), waited for the model, answered, looked."""


class SceneRow(BaseModel):
    """A room that can be asked about."""

    scene_id: str
    num_objects: int
    """Detected objects."""

    uploaded: bool


class ModelInfo(BaseModel):
    """Which model answers, and what it was made from."""

    model: str
    lineage: dict[str, Any]
