"""What one asks a server, and what it says."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from r1pipe.datasets.sample import Pose
from r1pipe.errors import DataError, R1Error
from r1pipe.files import Complaints, explain
from r1pipe.geometry import Box
from r1pipe.models.features import SceneFeatures
from r1pipe.params.section import Task
from r1pipe.response import identifier, identifiers
from r1pipe.views.choice import ViewChoice

Question = Annotated[str, Field(min_length=1, max_length=2000)]
Turn = Annotated[str, Field(max_length=2000)]
SceneId = Annotated[str, Field(max_length=100)]
EXAMPLE: dict[str, JsonValue] = {"scene_id": "room0504_00", "question": "what color is the chair?", "task": "qa"}
_FARTHEST_M = 1000.0


def complaint(error: Complaints) -> str:
    """What is said of fields that are no question."""
    return f"Expected a question: {explain(error)}."


class Ask(BaseModel):
    """A question about a room."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    scene_id: SceneId
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

    @field_validator("pose")
    @classmethod
    def _stands_in_a_room(cls, pose: Pose | None) -> Pose | None:
        # Written so that NaN fails too.
        if pose is not None and not all(abs(number) <= _FARTHEST_M for number in (*pose.position, *pose.rotation)):
            raise ValueError(f"expected a position in metres and a quaternion of at most {_FARTHEST_M:g}")
        if pose is not None and not any(pose.rotation):
            raise ValueError("expected a quaternion, which is never all zero")
        return pose

    @classmethod
    def read(cls, fields: Any) -> Self:
        """What was sent as a question.

        Raises:
            DataError: if it is none.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise DataError(complaint(error)) from None

    @property
    def kind(self) -> Task:
        """The task, guessed where it was left out."""
        if self.task is not None:
            return self.task
        if self.pose is not None:
            return "situated"
        return "dialogue" if self.history else "qa"


class Describe(BaseModel):
    """Which room to describe."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"scene_id": EXAMPLE["scene_id"]}]})

    scene_id: SceneId
    question: Question = "describe the room."


class Caption(BaseModel):
    """Which detected object to describe."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"scene_id": EXAMPLE["scene_id"], "object": 2}]}
    )

    scene_id: SceneId
    object: Annotated[int, Field(ge=0, le=999)]


class BusyError(R1Error, RuntimeError):
    """More is asked at once than a server takes in; `retry_after` seconds later there may be room."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LateError(R1Error, TimeoutError):
    """An answer did not come in time."""


class Refusal(BaseModel):
    """Why there is no answer."""

    detail: str


class Mention(BaseModel):
    """A detected object that question, reasoning or answer names."""

    id: str
    """Its identifier, `<obj_003>`."""

    label: str
    score: float
    box: Box

    @classmethod
    def all_in(cls, text: str, features: SceneFeatures) -> list[Self]:
        """Those that a text names, in order, each once."""
        return [
            cls(
                id=identifier(i),
                label=features.object_labels[i],
                score=round(float(features.object_scores[i]), 4),
                box=Box(*map(float, features.object_boxes[i])),
            )
            for i in identifiers(text)
            if i < len(features.object_boxes)
        ]


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

    @classmethod
    def of(cls, choice: ViewChoice, features: SceneFeatures) -> Self:
        """A choice with where its camera stands."""
        return cls(camera=features.cameras[choice.view].tolist(), **choice._asdict())


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

    def received_in(self, seconds: float) -> Self:
        """The same answer, with the seconds that its question took to arrive."""
        return self.model_copy(update={"timings": {"received": round(seconds, 4), **self.timings}})


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
