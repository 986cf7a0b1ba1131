"""A completion as TRL hands it over, and as the grammar reads it."""

from collections.abc import Sequence

from r1pipe.response import Response, parse

Completion = Sequence[dict[str, str]]
"""One assistant turn: `[{"role": "assistant", "content": text}]`."""


def responses(completions: Sequence[Completion], think: Sequence[bool]) -> list[Response | None]:
    """What each completion says under its task's grammar, None where it breaks it."""
    return [parse(c[0]["content"], think=t) for c, t in zip(completions, think, strict=True)]
