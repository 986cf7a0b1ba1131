"""Progress of long work: a bar with an estimate in a terminal, a log line now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

LOG_EVERY_S = 20.0
"""Seconds between two lines where there is no terminal."""


def set_up_logging() -> None:
    """Log to standard error, coloured in a terminal; called once, by whoever owns the process."""
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(show_path=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", datefmt="%H:%M:%S", handlers=[handler])
    else:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    for noisy in ("httpx", "httpcore", "urllib3", "numexpr", "matplotlib", "great_expectations"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        # open_clip tells how it loads on the root logger itself, which no level by name can quieten.
        handler.addFilter(lambda record: record.name != "root" or record.levelno > logging.INFO)


def track(
    items: Iterable[Item], description: str, *, total: int | None = None, status: Callable[[], str] = str
) -> Iterator[Item]:
    """The items, one by one, while showing how many are done and how long the rest will take.

    Args:
        items: what is worked on.
        description: the work, in a word or two.
        total: how many; `len(items)` where that is known.
        status: what else there is to say at the moment.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(items, description, total, status)


def _bar(items: Iterable[Item], description: str, total: int | None, status: Callable[[], str]) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(description, total=total)
        for item in items:
            yield item
            progress.update(task, advance=1, description=_joined(description, status()))


def _lines(items: Iterable[Item], description: str, total: int | None, status: Callable[[], str]) -> Iterator[Item]:
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LOG_EVERY_S:
            last = now
            left = "" if total is None else f" of {total}, about {(now - start) / count * (total - count):.0f} s left"
            logger.info("%s: %d%s", _joined(description, status()), count, left)
    logger.info("%s: %d done in %.1f s", _joined(description, status()), count, time.monotonic() - start)


def _joined(description: str, status: str) -> str:
    return f"{description}, {status}" if status else description
