"""Is a short answer right? Exact match, and what counts as equal under which benchmark.

Sources: SQA3D's answer clean-up, repeated word for word by LEO, Chat-Scene and Video-3D-LLM; LEO's refined exact match.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_SPELLINGS = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
    "none": "zero",
    "23": "twenty-three",  # 21 and 22 stay digits in the original
} | {str(number): word for number, word in enumerate(_NUMBERS)}
_SPELLING = re.compile(rf"\b({'|'.join(_SPELLINGS)})\b")
_UNWANTED = re.compile(r"[^a-zA-Z0-9,'\s\-:]+")
_OCLOCK = re.compile(r"\bo'[ ]+clock\b")
_BACKWARDS = re.compile(r"\bbackwards\b")
_NUMBERED = re.compile(r"\b([a-zA-Z]+)([0-9])\b")
_ARTICLES = tuple(re.compile(rf"\b{article}\b ([a-zA-Z]+)") for article in ("a", "an", "the"))


class Match(NamedTuple):
    """How an answer compares with its references."""

    exact: bool
    refined: bool
    """Exact, or one contains the other once spaces are removed."""


def clean_answer(text: str) -> str:
    """SQA3D's clean-up: lower case, no punctuation, known misspellings mended, digits to 20 as words, articles dropped.

    Its oddities are kept, because published numbers have them: `none` becomes `zero`, `let` becomes `left`, `no1` loses its digit.

    >>> clean_answer("The 2 chairs.")
    'two chairs'
    """
    text = re.sub(" {2,}", " ", text.lower().strip(" "))
    text = _UNWANTED.sub("", text)
    text = _OCLOCK.sub("o'clock", _SPELLING.sub(lambda match: _SPELLINGS[match[0]], text))
    text = _NUMBERED.sub(r"\1", text)
    for article in _ARTICLES:
        text = article.sub(r"\1", text)
    return _BACKWARDS.sub("backward", text)


def match(answer: str, references: Sequence[str]) -> Match:
    """Compare as they stand; the references' order does not matter and an empty answer contains nothing (Chat-Scene)."""
    exact = answer in references
    return Match(exact, exact or any(_contain(answer, reference) for reference in references))


def match_leo(answer: str, references: Sequence[str]) -> Match:
    """LEO's comparison: the first reference that matches at all decides, so order matters, and an empty answer is always refined-right."""
    for reference in references:
        if answer == reference:
            return Match(exact=True, refined=True)
        ours, theirs = "".join(answer.split()), "".join(reference.split())
        if ours in theirs or theirs in ours:
            return Match(exact=False, refined=True)
    return Match(exact=False, refined=False)


def _contain(answer: str, reference: str) -> bool:
    ours, theirs = "".join(answer.split()), "".join(reference.split())
    return bool(ours and theirs) and (ours in theirs or theirs in ours)


SITUATED_TYPES = ("what", "is", "how", "can", "which")


def situated_type(question: str) -> str:
    """SQA3D's type of a question: its first letters, or `other`."""
    start = question.lstrip().lower()
    return next((prefix for prefix in SITUATED_TYPES if start.startswith(prefix)), "other")
