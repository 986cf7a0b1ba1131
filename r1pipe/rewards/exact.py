"""Is the answer the reference, word for word? Off by default: semantic similarity says it more softly."""

from collections.abc import Sequence
from typing import Any

from r1pipe.metrics.answers import clean_answer, match
from r1pipe.rewards.completion import Completion, responses


def exact_match_reward(
    completions: Sequence[Completion], *, references: Sequence[Sequence[str] | None], think: Sequence[bool], **_: Any
) -> list[float | None]:
    """1.0 where the cleaned answer is a cleaned reference, as exact match is measured, else 0.0; None without references."""
    rows = zip(responses(completions, think), references, strict=True)
    return [None if not texts else 0.0 if said is None else _equal(said.answer, texts) for said, texts in rows]


def _equal(answer: str, references: Sequence[str]) -> float:
    return float(match(clean_answer(answer), [clean_answer(text) for text in references]).exact)
