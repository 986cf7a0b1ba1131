"""Prediction and reference files: their rows, checked on the way in, and matched by id."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from r1pipe.errors import DataError
from r1pipe.files import explain
from r1pipe.geometry import Box, OrientedBox


def read_box(value: Any) -> Any:
    """A box from 6 numbers, 7 (with a yaw), 9 (with three angles), or its 8 corners.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, Box | OrientedBox):
        return value
    numbers = _numbers(value)
    if numbers.shape == (8, 3):
        turned = OrientedBox.around_corners(numbers)
        if turned is None:
            raise ValueError("the 8 corners are not those of a box")
        return Box.around(numbers) if _along_axes(numbers) else turned
    if numbers.shape == (6,):
        return Box(*numbers.tolist())
    if numbers.shape in ((7,), (9,)):
        return OrientedBox(*numbers.tolist())
    raise ValueError("a box is 6 numbers (centre, size), 7 or 9 (and angles), or 8 corners")


def _numbers(value: Any) -> NDArray[np.float64]:
    """The value as an array, an empty one where it is ragged or not of numbers."""
    try:
        array = np.array(value)
    except ValueError:
        return np.zeros(0)
    return array.astype(np.float64) if array.dtype.kind in "if" else np.zeros(0)


def _along_axes(corners_83: NDArray[np.float64]) -> bool:
    low, high = corners_83.min(axis=0), corners_83.max(axis=0)
    gap = np.minimum(np.abs(corners_83 - low), np.abs(corners_83 - high))
    return bool(gap.max() <= 1e-6 * max(1.0, float(np.abs(corners_83).max())))


AnyBox = Annotated[Box | OrientedBox, PlainValidator(read_box)]


class Row(BaseModel):
    """A line of a file; keys beyond ours are let pass, so that files can carry notes, and an id may be a number."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Identified(Row):
    """A line that has an id."""

    id: str


class Answer(Identified):
    """A predicted text."""

    answer: str
    top10: tuple[str, ...] = ()
    """ScanQA's `answer_top10`, the answer first."""


class AnswerReference(Identified):
    """The texts that are right."""

    answers: tuple[str, ...] = Field(min_length=1)
    question_type: str | None = None
    question: str | None = None
    """From it the type follows where none is given."""


class Boxes(Identified):
    """Predicted boxes, the best first; metres, scene frame."""

    boxes: tuple[AnyBox, ...]
    unique: bool | None = None
    """ScanRefer's official submissions say themselves which queries are unique."""


class BoxesReference(Identified):
    """The boxes asked for."""

    boxes: tuple[AnyBox, ...]
    unique: bool | None = None
    """Whether the scene has no other object of the target's class."""

    tags: tuple[str, ...] = ()
    """`easy`, `hard`, `view-dependent`, `view-independent`: groups to score apart."""

    scene_id: str = ""
    """Where the query is asked, if its id does not say so."""

    eval_type: str | None = None
    """Multi3DRefer's own name of the query's type."""


class Caption(Row):
    """A predicted sentence about a box."""

    scene_id: str
    object_id: int | None = None
    box: AnyBox
    caption: str


class CaptionReference(Row):
    """The sentences about an annotated object."""

    scene_id: str
    object_id: int
    box: AnyBox
    captions: tuple[str, ...] = Field(min_length=1)


class Texts(Identified):
    """A key of a `corpus` or `pred` JSON with its sentences."""

    texts: tuple[str, ...] = Field(min_length=1)


class ObjectCaption(Identified):
    """A predicted sentence about a single object."""

    caption: str = Field(validation_alias=AliasChoices("caption", "answer"))


class ObjectReference(Identified):
    """The sentences about a single object, and its views."""

    captions: tuple[str, ...] = Field(default=(), validation_alias=AliasChoices("captions", "answers"))
    images: tuple[str, ...] = ()
    """Paths of its views, from the reference file's folder; every object has as many."""


Kind = TypeVar("Kind", bound=Row)
Named = TypeVar("Named", bound=Identified)


def parse(rows: Iterable[Mapping[str, Any]], kind: type[Kind], what: str) -> list[Kind]:
    """The rows as models.

    Raises:
        DataError: if rows do not fit, with their number and the first one's complaint.
    """
    models: list[Kind] = []
    complaints: list[tuple[int, str]] = []
    for number, row in enumerate(rows, 1):
        try:
            models.append(kind.model_validate(row))
        except ValidationError as error:
            complaints.append((number, explain(error)))
    if complaints:
        number, first = complaints[0]
        total = len(models) + len(complaints)
        raise DataError(
            f"Expected a row of {what}, found another in row {number}: {first}; {len(complaints)} of {total} rows do not fit."
        )
    return models


def in_order(predictions: Sequence[Named], references: Sequence[Identified]) -> list[Named]:
    """The predictions in the references' order.

    Raises:
        DataError: if the ids are not exactly the references', each once; the sentence counts missing, surplus and
            repeated ones, and says which they are and in which rows.
    """
    wanted = [row.id for row in references]
    check_once(wanted, "references")
    names = [row.id for row in predictions]
    if not names:
        raise DataError(f"Expected predictions for {len(wanted)} reference ids, found none.")
    found = dict(zip(names, predictions, strict=True))
    known = set(wanted)
    missing = [name for name in wanted if name not in found]
    surplus = [f"{name} in row {number}" for number, name in enumerate(names, 1) if name not in known]
    repeated = _repeated(names)
    if missing or surplus or repeated:
        raise DataError(
            f"Expected a prediction for each of the {len(wanted)} reference ids, each once, found "
            f"{len(missing)} missing{such_as(missing)}, {len(surplus)} surplus{such_as(surplus)} and "
            f"{len(repeated)} repeated{such_as(repeated)}."
        )
    return [found[name] for name in wanted]


def check_once(names: Sequence[object], what: str) -> None:
    """Refuse none at all, and any that repeats.

    Raises:
        DataError: with the count of repeated ids, and their rows.
    """
    if not names:
        raise DataError(f"Expected rows of {what}, found none.")
    repeated = _repeated(names)
    if repeated:
        raise DataError(f"Expected each id once in the {what}, found {len(repeated)} repeated{such_as(repeated)}.")


def _repeated(names: Sequence[object]) -> list[str]:
    """Each name that stands more than once, with the rows where it does."""
    again = {name for name, times in Counter(names).items() if times > 1}
    rows: dict[object, list[str]] = {name: [] for name in names if name in again}
    for number, name in enumerate(names, 1):
        if name in again:
            rows[name].append(str(number))
    return [f"{name} in rows {', '.join(numbers)}" for name, numbers in rows.items()]


def such_as(names: Sequence[object]) -> str:
    """At most three of them in brackets, nothing for none."""
    shown = ", ".join(map(str, names[:3]))
    return f" ({shown}{', ...' if len(names) > 3 else ''})" if names else ""
