"""Prediction and reference files: one JSON object a line, checked on the way in."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1pipe.errors import DataError
from r1pipe.files import explain
from r1pipe.geometry import Box


class Row(BaseModel):
    """A line of a file; keys beyond ours are let pass, so that files can carry notes."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Identified(Row):
    """A line that has an id."""

    id: str


class Answer(Identified):
    """A predicted text."""

    answer: str


class AnswerReference(Identified):
    """The texts that are right."""

    answers: tuple[str, ...] = Field(min_length=1)
    question_type: str | None = None


class Boxes(Identified):
    """Predicted boxes, the best first; metres, scene frame."""

    boxes: tuple[Box, ...]


class BoxesReference(Identified):
    """The boxes asked for."""

    boxes: tuple[Box, ...]
    unique: bool | None = None
    """Whether the scene has no other object of the target's class."""

    tags: tuple[str, ...] = ()
    """`easy`, `hard`, `view-dependent`, `view-independent`: groups to score apart."""


class Caption(Row):
    """A predicted sentence about a box."""

    scene_id: str
    object_id: int | None = None
    box: Box
    caption: str


class CaptionReference(Row):
    """The sentences about an annotated object."""

    scene_id: str
    object_id: int
    box: Box
    captions: tuple[str, ...] = Field(min_length=1)


Kind = TypeVar("Kind", bound=Row)
Named = TypeVar("Named", bound=Identified)


def parse(rows: Iterable[Mapping[str, Any]], kind: type[Kind], what: str) -> list[Kind]:
    """The rows as models.

    Raises:
        DataError: at the first row that does not fit, or where there is none.
    """
    models = []
    for number, row in enumerate(rows, 1):
        try:
            models.append(kind.model_validate(row))
        except ValidationError as error:
            raise DataError(f"Expected a row of {what}, found another in row {number}: {explain(error)}.") from None
    return models


def in_order(predictions: Sequence[Named], references: Sequence[Identified]) -> list[Named]:
    """The predictions in the references' order.

    Raises:
        DataError: if the ids are not exactly the references', each once; the sentence counts missing, surplus and repeated ones.
    """
    wanted = [row.id for row in references]
    check_once(wanted, "references")
    found = {row.id: row for row in predictions}
    check_once([row.id for row in predictions], "predictions")
    missing = [name for name in wanted if name not in found]
    surplus = sorted(found.keys() - set(wanted))
    if missing or surplus:
        raise DataError(
            f"Expected a prediction for each of the {len(wanted)} reference ids, "
            f"found {len(missing)} missing{_such_as(missing)} and {len(surplus)} surplus{_such_as(surplus)}."
        )
    return [found[name] for name in wanted]


def check_once(names: Sequence[object], what: str) -> None:
    """Refuse none at all, and any that repeats.

    Raises:
        DataError: with the count of repeated ids.
    """
    if not names:
        raise DataError(f"Expected rows of {what}, found none.")
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"Expected each id once in the {what}, found {len(repeated)} repeated{_such_as(repeated)}.")


def _such_as(names: Sequence[object]) -> str:
    shown = ", ".join(map(str, names[:3]))
    return f" ({shown}{', ...' if len(names) > 3 else ''})" if names else ""
