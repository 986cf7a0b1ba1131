"""What the doctor says: one line a thing."""

from typing import Literal, NamedTuple

GIB = 1024**3
State = Literal["ok", "missing", "optional"]


class Finding(NamedTuple):
    """One thing that the pipeline may need."""

    state: State
    """`missing` where what was asked about (the tiny scale, or a profile) cannot run without it."""

    what: str
    found: str
    purpose: str


def needed(holds: bool, what: str, found: str, purpose: str) -> Finding:
    """A finding that is `missing` unless it holds."""
    return Finding("ok" if holds else "missing", what, found, purpose)


def useful(holds: bool, what: str, found: str, purpose: str) -> Finding:
    """A finding that is `optional` unless it holds."""
    return Finding("ok" if holds else "optional", what, found, purpose)
