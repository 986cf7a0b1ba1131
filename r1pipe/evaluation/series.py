"""Courses of training: what dvclive wrote, one file a number."""

import csv
from pathlib import Path
from typing import NamedTuple

from r1pipe.errors import DataError


class Series(NamedTuple):
    """A number over the steps of a training."""

    steps: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def window(self) -> int:
        """How many points the trailing mean is over: a twentieth of them, at least one."""
        return max(1, len(self.values) // 20)

    def smooth(self) -> "Series":
        """The trailing mean over `window` points."""
        width = self.window
        means = [sum(part := self.values[max(0, i - width + 1) : i + 1]) / len(part) for i in range(len(self.values))]
        return Series(self.steps, tuple(means))


def read_series(path: Path) -> Series:
    """One of dvclive's tables: a header, then step and value (its last column) a line.

    Raises:
        DataError: if there is no column `step`, or a cell is no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if not rows or "step" not in rows[0]:
        raise DataError(f"Expected a column `step` and rows in {path}, found {list(rows[0]) if rows else 'no row'}.")
    name = list(rows[0])[-1]
    try:
        return Series(tuple(float(row["step"]) for row in rows), tuple(float(row[name]) for row in rows))
    except (TypeError, ValueError) as error:
        raise DataError(f"Expected numbers in {path}, found another cell: {error}.") from None


def read_courses(folder: Path) -> dict[str, Series]:
    """Every course with at least two points that dvclive wrote into a folder, by name (`rewards/format/mean`)."""
    root = folder / "plots" / "metrics"
    found = {
        path.relative_to(root).with_suffix("").as_posix(): read_series(path) for path in sorted(root.rglob("*.tsv"))
    }
    return {name: series for name, series in found.items() if len(series.steps) > 1}
