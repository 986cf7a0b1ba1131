"""Files that appear whole, written beside their place and then renamed; and files that one process holds at a time."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from r1pipe.errors import DataError, MissingError

Model = TypeVar("Model", bound=BaseModel)

_DRAFT = ".draft-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` on success and is removed on failure.

    Serves a file and a folder alike; what stood at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: numpy and safetensors choose by it.
    draft = path.with_name(f"{_DRAFT}{os.getpid()}-{path.name}")
    _remove(draft)
    try:
        yield draft
        if path.is_dir():
            shutil.rmtree(path)  # rename() replaces a file, but not a folder that holds something
        draft.replace(path)
    finally:
        _remove(draft)


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes have left of `whole`; nobody may be writing there."""
    for draft in folder.glob(f"{_DRAFT}*"):
        _remove(draft)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def try_lock(file: IO[str]) -> bool:
    """Whether nobody else holds a lock file; until it is closed, or this process ends, it is then held here."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file; where another process holds it, `busy` is called before the wait for it."""
    with path.open("w") as file:
        if not try_lock(file):
            busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        MissingError: if there is no such file.
        DataError: if it does not parse; the sentence names line and column.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MissingError(f"Expected a JSON file at {path}, found none.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"Expected JSON in {path}, found text that does not parse: {error}.") from None


def write_jsonl(path: Path, rows: Iterable[BaseModel | Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with whole(path) as draft, draft.open("w", encoding="utf-8") as file:
        for row in rows:
            text = row.model_dump_json() if isinstance(row, BaseModel) else json.dumps(row, ensure_ascii=False)
            file.write(text + "\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, one at a time.

    Raises:
        MissingError: if there is no such file.
        DataError: at a line that is not a JSON object; the sentence names file and line.
    """
    if not path.is_file():
        raise MissingError(f"Expected a JSONL file at {path}, found none.")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(line, path, number)


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"Expected a JSON object in {path}, line {number}, found text that does not parse: {error}."
        ) from None
    if not isinstance(row, dict):
        raise DataError(f"Expected a JSON object in {path}, line {number}, found {type(row).__name__}.")
    return row


def read_models(path: Path, model: type[Model]) -> list[Model]:
    """The rows of a JSONL file as pydantic models.

    Raises:
        DataError: at a row that does not fit the model; the sentence names file, line and field.
    """
    models = []
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            models.append(model.model_validate(row))
        except ValidationError as error:
            raise DataError(f"Expected a {model.__name__} in {path}, row {number}: {explain(error)}.") from None
    return models


class Complaints(Protocol):
    """An error of pydantic, or of what is built on it."""

    def errors(self) -> Sequence[Any]:
        """Each complaint: where, why, about what."""
        ...


def explain(error: Complaints) -> str:
    """The first complaint of a pydantic error in one line: field, reason, value."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the whole"
    return f"{where}: {first['msg'].lower()}, found {str(first['input'])[:80]!r}"


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
