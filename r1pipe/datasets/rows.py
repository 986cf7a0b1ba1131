"""Rows of published files, checked one by one: a malformed one is named by file, row and field."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from r1pipe.errors import DataError, MissingError
from r1pipe.files import explain, read_json

Model = TypeVar("Model", bound=BaseModel)


class Row(BaseModel):
    """A row as its authors publish it; fields that nobody reads are let through."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def parse(model: type[Model], value: Any, where: str) -> Model:
    """The value as a model.

    Raises:
        DataError: if a field is missing or of another type.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        name = model.__module__.rpartition(".")[2]
        raise DataError(f"Expected {name} data in {where}: {explain(error)}.") from None


def json_rows(paths: Sequence[Path], model: type[Model], *, key: str | None = None) -> Iterator[tuple[str, Model]]:
    """Where each row stands, and the row, of JSON files that hold a list, or a list under `key`."""
    for path in paths:
        value = read_json(path)
        rows = value.get(key) if isinstance(value, dict) and key is not None else value
        if not isinstance(rows, list):
            under = f" under {key!r}" if key else ""
            raise DataError(f"Expected a list{under} in {path}, found {type(rows).__name__}.")
        for number, row in enumerate(rows):
            where = f"{path}, row {number}"
            yield where, parse(model, row, where)


def csv_rows(paths: Sequence[Path], model: type[Model]) -> Iterator[tuple[str, Model]]:
    """Where each row stands, and the row, of CSV files with a header."""
    for path in paths:
        if not path.is_file():
            raise MissingError(f"Expected a CSV file at {path}, found none.")
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                where = f"{path}, row {number}"
                yield where, parse(model, {key: value for key, value in row.items() if key is not None}, where)
