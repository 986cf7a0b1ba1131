"""What is wrong with annotation files as their authors publish them: one row an annotation, before any reader mends it."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from r1pipe.datasets.manifest import Manifest, read_splits
from r1pipe.files import read_json, read_jsonl
from r1pipe.params.section import Split

DEFECTS = ("repeated", "asked_before", "trailing_comma", "other_split")
"""The columns that say what is wrong with a row; None where its format cannot have the defect."""

_ASKED_BY_WORDS = frozenset({"scanqa", "threedllm", "scene30k"})
"""The sources in which scene and question are the whole prompt."""

_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:idation)?(?![a-z])")


def annotations_table(manifest: Manifest) -> pd.DataFrame:
    """One row an annotation: `id`, `file`, and the `DEFECTS`.

    Raises:
        MissingError: if a file of the manifest is gone.
        DataError: if one cannot be read.
    """
    rows: list[dict[str, object]] = []
    for root in manifest.roots:
        splits = read_splits(root.folder / "meta") if root.annotations else {}
        for annotations in root.annotations:
            for file in annotations.files:
                rows += _facts(root.folder / file.path, annotations.source, splits)
    return pd.DataFrame(rows, columns=["id", "file", *DEFECTS])


def defect_counts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By file, how many rows have each defect; files and defects without any are left out."""
    counts: dict[str, dict[str, int]] = {}
    for file, rows in table.groupby("file"):
        found = {name: int(rows[name].eq(True).sum()) for name in DEFECTS}
        if any(found.values()):
            counts[str(file)] = {name: count for name, count in found.items() if count}
    return counts


def _facts(path: Path, source: str, splits: Mapping[str, Split]) -> Iterator[dict[str, object]]:
    rows_seen: set[str] = set()
    prompts_seen: set[tuple[Any, Any]] = set()
    meant = _split_of(path, source)
    for number, row in enumerate(_rows(path)):
        text, prompt = json.dumps(row, sort_keys=True), (row.get("scene_id"), row.get("question"))
        scene_split = splits.get(str(row.get("scene_id")))
        yield {
            "id": f"{path.name}, row {number}",
            "file": path.name,
            "repeated": text in rows_seen,
            "asked_before": prompt in prompts_seen if source in _ASKED_BY_WORDS else None,
            "trailing_comma": _ends_in_comma(row.get("answers")),
            "other_split": None if meant is None or scene_split is None else meant != scene_split,
        }
        rows_seen.add(text)
        prompts_seen.add(prompt)


def _split_of(path: Path, source: str) -> str | None:
    """The split that a file is for, by its name; Scene-30K is there to train on, whatever its files are called."""
    named = _SPLIT.search(path.stem)
    return named[1] if named is not None else "train" if source == "scene30k" else None


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSON list (or of the one list in an object), of JSONL, of CSV with a header."""
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    else:
        value = read_json(path)
        lists = [value] if isinstance(value, list) else [part for part in value.values() if isinstance(part, list)]
        for rows in lists:
            yield from rows


def _ends_in_comma(answers: object) -> bool | None:
    """Whether an answer in words ends in a comma; None where there is none."""
    texts = [each for each in answers if isinstance(each, str)] if isinstance(answers, list) else []
    return any(text.rstrip().endswith(",") for text in texts) if texts else None
