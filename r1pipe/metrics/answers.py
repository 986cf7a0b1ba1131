"""Is a short answer right? Exact match, and what counts as equal under which benchmark.

Sources: SQA3D's answer clean-up, repeated word for word by LEO, Chat-Scene and Video-3D-LLM; LEO's refined exact match;
ScanQA's `scripts/score.py` and SQA3D's `LLM/eval_sqa3d_llm.py`.
"""

import re
from collections.abc import Callable, Sequence
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


def match_any_word(answer: str, references: Sequence[str]) -> Match:
    """SQA3D's script for language models: refined-right if the first reference contains the answer, or shares a word with it."""
    reference = references[0]
    exact = answer == reference
    contained = "".join(answer.split()) in "".join(reference.split())
    return Match(exact, exact or contained or not set(answer.split()).isdisjoint(reference.split()))


def unigram_f(answer: str, references: Sequence[str], lemma: Callable[[str], str]) -> float:
    """ScanQA's F-value, 0..1: F1 of the words' lemmas that the other side has too, with the best reference; 1 for an exact match.

    An empty answer scores 0; the official script divides by zero there.
    """
    if answer in references:
        return 1.0
    ours = [lemma(word) for word in answer.split()]
    return max(_shared_f(ours, [lemma(word) for word in text.split()]) for text in references)


def _shared_f(ours: Sequence[str], theirs: Sequence[str]) -> float:
    if set(ours).isdisjoint(theirs):
        return 0.0
    precision = sum(word in theirs for word in ours) / len(ours)
    recall = sum(word in ours for word in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall)


def _contain(answer: str, reference: str) -> bool:
    ours, theirs = "".join(answer.split()), "".join(reference.split())
    return bool(ours and theirs) and (ours in theirs or theirs in ours)


SITUATED_TYPES = ("what", "is", "how", "can", "which")


def situated_type(question: str) -> str:
    """SQA3D's type of a question: its first letters, or `other`."""
    start = question.lstrip().lower()
    return next((prefix for prefix in SITUATED_TYPES if start.startswith(prefix)), "other")
