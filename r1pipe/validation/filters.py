"""Filters for chains of thought: in a fixed order, each with the name under which it rejects.

Source: 3D-R1, appendix on Scene-30K. The paper's thresholds are parameters here; its "last step names the target" is read
as: an identifier of a target, or where the sample has none, a word of the question.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft, reference
from r1pipe.params.chains import Filters
from r1pipe.params.run import Think
from r1pipe.response import Response, identifiers, parse

_STEP_END = re.compile(r"\n|;|\.(?=\s|$)|[!?](?=\s|$)|\bstep\s+\d+\b:?", re.IGNORECASE)
_LETTER = re.compile(r"[a-zA-Z]")
_WORD = re.compile(r"[a-z]{3,}")
_EMPTY_WORDS = frozenset(
    [
        "the",
        "and",
        "are",
        "any",
        "which",
        "what",
        "where",
        "how",
        "many",
        "there",
        "room",
        "this",
        "that",
        "with",
        "from",
    ]
    + ["you", "your", "its", "for", "does", "can", "will", "who", "when", "standing", "facing"]
)


class Candidate(NamedTuple):
    """What the filters look at."""

    draft: Draft
    sample: Sample
    response: Response
    think: bool


Filter = Callable[[Candidate, Filters], bool]
"""Whether a draft passes."""


def reject_reason(draft: Draft, sample: Sample, think: Think, filters: Filters) -> str | None:
    """The name of the first filter that a draft does not pass; None for one that is kept."""
    reasons = think.on(sample.task)
    response = parse(draft.cot, think=reasons)
    if response is None:
        return "format"
    candidate = Candidate(draft, sample, response, reasons)
    return next((name for name, passes in FILTERS.items() if not passes(candidate, filters)), None)


def steps(thinking: str) -> list[str]:
    """The steps of a chain of thought: what stands between ends of sentences, lines, semicolons and `step 2:`.

    A piece without a letter, as the number of a list's item, is no step.

    >>> steps("1. The bed is <obj_002>. 2. It is red.")
    ['The bed is <obj_002>', 'It is red']
    """
    return [piece.strip() for piece in _STEP_END.split(thinking) if _LETTER.search(piece)]


def similarity(one: str, two: str) -> float:
    """1 - Levenshtein distance / longer length, 0..1, up to case and white space at the ends; 1 for two empty texts.

    >>> similarity("green", "Gray")
    0.4
    """
    a, b = one.strip().lower(), two.strip().lower()
    if a == b:
        return 1.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return 1 - row[-1] / max(len(a), len(b))


def answer_similarity(answer: str, sample: Sample) -> float:
    """Of an answer and the best reference; identifiers are compared as a set."""
    right = reference(sample)
    if right is not None and identifiers(right):
        return float(set(identifiers(answer)) == set(identifiers(right)))
    references = sample.answers if sample.task != "grounding" else (right or "",)
    return max((similarity(answer, each) for each in references), default=0.0)


def _has_length(candidate: Candidate, filters: Filters) -> bool:
    words = len(candidate.response.thinking.split())
    return not candidate.think or filters.min_think_words <= words <= filters.max_think_words


def _has_answer_length(candidate: Candidate, filters: Filters) -> bool:
    return filters.min_answer_words <= len(candidate.response.answer.split()) <= filters.max_answer_words


def _has_steps(candidate: Candidate, filters: Filters) -> bool:
    return not candidate.think or len(steps(candidate.response.thinking)) >= filters.min_steps


def _names_target(candidate: Candidate, filters: Filters) -> bool:
    if not candidate.think:
        return True
    last = (steps(candidate.response.thinking) or [""])[-1]
    targets = set(candidate.sample.object_ids)
    if targets:
        return bool(targets & set(identifiers(last)))
    answer = _content(candidate.response.answer)
    asked = _content(candidate.sample.question) - answer
    return not asked or bool(asked & _content(last))


def _content(text: str) -> set[str]:
    """The words that say something, without a plural's ending."""
    return {re.sub(r"(?<=..)e?s$", "", word) for word in _WORD.findall(text.lower()) if word not in _EMPTY_WORDS}


def _is_consistent(candidate: Candidate, filters: Filters) -> bool:
    """Both the answer given and the one drawn from the reasoning alone are the reference.

    By letters, as in the paper: one wrong word changes too little of a long answer to be noticed.
    """
    if not candidate.think:
        return True
    second = candidate.draft.second_answer
    answers = [candidate.response.answer, *([] if second is None else [second])]
    return all(answer_similarity(answer, candidate.sample) >= filters.consistency for answer in answers)


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        "length": _has_length,
        "answer_length": _has_answer_length,
        "steps": _has_steps,
        "target": _names_target,
        "consistency": _is_consistent,
    }
)
"""In this order, after `format`."""
