"""Whose rules a number follows: the same answers score otherwise under each public evaluator, so every number names its protocol."""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from r1pipe.errors import DataError
from r1pipe.metrics.answers import Match, clean_answer, match, match_leo
from r1pipe.metrics.dense import wrap
from r1pipe.metrics.tokens import tokenize

ScoreTask = Literal["qa", "situated", "grounding", "multi-grounding", "captioning", "dialogue", "planning"]
_STOP = re.compile(r"[.,]")
Rewrite = Callable[[str], str]


class AnswerProtocol(NamedTuple):
    """How textual answers are compared."""

    name: str
    rules: str
    prediction: Rewrite
    """To the tokens, separated by spaces, that the n-gram metrics see."""

    reference: Rewrite
    compare: Callable[[str, Sequence[str]], Match] | None
    """Exact and refined match; None where the benchmark has none."""


class CaptionProtocol(NamedTuple):
    """How captions of boxes are compared."""

    name: str
    rules: str
    prediction: Rewrite
    reference: Rewrite
    inclusive: bool
    """Whether an IoU of exactly k counts."""

    silence_counts: bool
    """Whether an object that no box overlaps is scored as `sos eos`, or left out of the corpus."""


class BoxProtocol(NamedTuple):
    """How boxes are compared."""

    name: str
    rules: str


def ptb(text: str) -> str:
    """coco-caption's tokens."""
    return " ".join(tokenize(text))


def spaced(text: str) -> str:
    """The words as they stand, with single spaces."""
    return " ".join(text.split())


def _compare_scanqa(answer: str, references: Sequence[str]) -> Match:
    exact = answer in references
    return Match(exact, exact or _compare_clean(answer, references).refined)


def _compare_clean(answer: str, references: Sequence[str]) -> Match:
    return match(clean_answer(answer), [clean_answer(text) for text in references])


def _compare_leo(answer: str, references: Sequence[str]) -> Match:
    return match_leo(clean_answer(answer), [clean_answer(text) for text in references])


def _chat_scene(answer: str) -> str:
    answer = answer.removesuffix(".")
    return clean_answer(answer[:1].lower() + answer[1:])


def _compare_chat_scene(answer: str, references: Sequence[str]) -> Match:
    return match(_chat_scene(answer), references)


def _without_stop(text: str) -> str:
    return spaced(text).rstrip(".")


def _wrapped_ptb(text: str) -> str:
    return ptb(wrap(text))


def _wrapped_30(text: str) -> str:
    return wrap(" ".join(text.split()[:30]))


def _wrapped_leo(text: str) -> str:
    return spaced(f"sos {text} eos".replace(". ", " . "))


def _wrapped_video(text: str) -> str:
    apart = _STOP.sub(r" \g<0> ", text)
    return spaced(f"sos {apart.lower()} eos")


Protocol = AnswerProtocol | CaptionProtocol | BoxProtocol

_LEO = AnswerProtocol(
    "leo", "both sides cleaned, no PTB; the first reference that matches decides", clean_answer, clean_answer, _compare_leo
)  # fmt: skip
_COCO = AnswerProtocol("coco", "n-grams of PTB tokens of the raw strings; no exact match", ptb, ptb, None)
_LL3DA = AnswerProtocol("ll3da", "raw words, case kept, no PTB; no exact match", spaced, spaced, None)

PROTOCOLS: dict[ScoreTask, tuple[Protocol, ...]] = {
    "qa": (
        AnswerProtocol(
            "scanqa",
            "ScanQA's score.py: exact match of raw strings, n-grams of PTB tokens; refined match is LEO's, of cleaned strings, in any order",
            ptb,
            ptb,
            _compare_scanqa,
        ),
        _LEO,
        AnswerProtocol(
            "chat-scene",
            "prediction cleaned, references raw, n-grams of PTB tokens",
            lambda text: ptb(_chat_scene(text)),
            ptb,
            _compare_chat_scene,
        ),
        AnswerProtocol(
            "video-3d-llm",
            "exact match of raw strings; n-grams of raw words without final full stop, no PTB",
            _without_stop,
            _without_stop,
            match,
        ),
        _LL3DA,
    ),
    "situated": (
        AnswerProtocol(
            "sqa3d",
            "exact and refined match of strings cleaned by SQA3D's clean_answer; n-grams of PTB tokens of the raw strings",
            ptb,
            ptb,
            _compare_clean,
        ),
        _LEO,
    ),
    "dialogue": (_LL3DA, _COCO),
    "planning": (_LL3DA, _COCO),
    "grounding": (
        BoxProtocol("scanrefer", "Acc@k of the one predicted box, IoU >= k without epsilon; every query must be answered"),
    ),
    "multi-grounding": (
        BoxProtocol("multi3drefer", "F1@k a query by optimal matching, IoU >= k, mean over queries; no target: right without prediction"),
    ),
    "captioning": (
        CaptionProtocol(
            "scan2cap",
            "m@kIoU over annotated objects, IoU >= k, PTB tokens of `sos ... eos`; no caption there: `sos eos`",
            _wrapped_ptb,
            _wrapped_ptb,
            inclusive=True,
            silence_counts=True,
        ),
        CaptionProtocol(
            "ll3da",
            "m@kIoU, IoU > k, raw words of `sos ... eos`, references cut to 30 words",
            wrap,
            _wrapped_30,
            inclusive=False,
            silence_counts=True,
        ),
        CaptionProtocol(
            "leo",
            "m@kIoU, IoU >= k, raw words, full stops apart; objects without any overlapping box are left out",
            _wrapped_leo,
            _wrapped_leo,
            inclusive=True,
            silence_counts=False,
        ),
        CaptionProtocol(
            "video-3d-llm",
            "m@kIoU, IoU >= k, lower case, full stops and commas apart; objects without any overlapping box are left out",
            _wrapped_video,
            _wrapped_video,
            inclusive=True,
            silence_counts=False,
        ),
    ),
}  # fmt: skip
"""Per task; the first is the default."""


def protocol(task: ScoreTask, name: str | None) -> Protocol:
    """A task's protocol by name, its default for None.

    Raises:
        DataError: if the task has no protocol of that name.
    """
    known = PROTOCOLS[task]
    for candidate in known:
        if name in (None, candidate.name):
            return candidate
    raise DataError(f"Expected a protocol of {task} ({', '.join(p.name for p in known)}), found {name!r}.")
