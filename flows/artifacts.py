"""What a run shows in Prefect's UI beside its log: progress, metrics as tables, the report."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from r1pipe.files import read_json

UPDATE_EVERY_S = 5.0


class Progress:
    """A stage's lines: all to the run's log, `12 of 30` among them to a progress artifact."""

    def __init__(self, stage: str, logger: "logging.Logger | logging.LoggerAdapter[logging.Logger]") -> None:
        self.logger = logger
        # Typed as if it might be awaited; it is not, outside of async code.
        self.id = cast(UUID, create_progress_artifact(0.0, key=f"{stage}-progress", description=f"Stage `{stage}`"))
        self.updated = time.monotonic()

    def hear(self, line: str) -> None:
        """Log a line; a warning, such as a dead reward's, as one."""
        level = next((level for name, level in LEVELS.items() if f" {name} " in line), logging.INFO)
        self.logger.log(level, line)
        found = re.search(r"\b(\d+) of (\d+)\b", line)
        if found and int(found[2]) and time.monotonic() - self.updated > UPDATE_EVERY_S:
            self.show(min(100.0, 100 * int(found[1]) / int(found[2])))

    def show(self, percent: float) -> None:
        """Move the bar; a server that is away for a while must not end the stage."""
        self.updated = time.monotonic()
        try:
            update_progress_artifact(self.id, percent)
        except httpx.HTTPError as error:
            self.logger.warning("Expected Prefect's server to take progress, found: %s.", error)


LEVELS = {"ERROR": logging.ERROR, "WARNING": logging.WARNING}


def show_metrics(stage: str, files: Sequence[Path]) -> None:
    """The numbers of a stage's metrics files as a table."""
    rows = [row for file in files for row in _rows(read_json(file), "")]
    if rows:
        create_table_artifact(rows, key=f"{stage}-metrics", description=f"Metrics of stage `{stage}`")


def show_report(report: Path) -> None:
    """A link to the page of results, on the machine that ran."""
    create_link_artifact(report.absolute().as_uri(), "the report", key="report", description=f"`{report.absolute()}`")


def _rows(values: Any, name: str) -> Iterator[dict[str, Any]]:
    """A row a number; a value with its interval is one row."""
    if isinstance(values, Mapping) and "value" in values:
        yield {"metric": name} | {key: values.get(key) for key in ("value", "low", "high", "n")}
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _rows(value, f"{name}.{key}" if name else key)
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield {"metric": name, "value": values}
