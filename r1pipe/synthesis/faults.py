"""Mistakes made on purpose, each of a kind that one filter is there to catch, so that the filters can be measured."""

import re
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from r1pipe.datasets import Sample
from r1pipe.metrics.answers import clean_answer
from r1pipe.response import compose, identifier, identifiers
from r1pipe.scenes.colours import NAMED
from r1pipe.synthesis.patterns import SO
from r1pipe.synthesis.room import Room

Rng = np.random.Generator
Fault = Callable[[Sample, Room, str, str, Rng], str | None]
"""Sample, room, reasoning, answer: the faulty text, or None where this sample leaves no room for the fault."""

_LONG_WORDS = 2000
_KINDS: tuple[tuple[str, ...], ...] = (
    tuple(NAMED),
    ("yes", "no"),
    ("left", "right", "behind", "front"),
    tuple(str(n) for n in range(10)),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
)


def generator(seed: int, sample_id: str) -> Rng:
    """The sample's own generator: what befalls it does not depend on the others."""
    return np.random.default_rng([seed, zlib.crc32(sample_id.encode())])


def draw(rates: Mapping[str, float], rng: Rng) -> str | None:
    """The name of a fault, each as often as its rate says; None for most samples."""
    edges = np.cumsum(list(rates.values()))
    index = int(np.searchsorted(edges, rng.random(), side="right"))
    return list(rates)[index] if index < len(edges) else None


def _format(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """A tag left out, twice, nested or misspelt, the parts the wrong way round, a part empty, or words outside."""
    broken = (
        f"<think>{thinking}<answer>{answer}</answer>",
        f"<answer>{answer}</answer><think>{thinking}</think>",
        f"{thinking} {compose('', answer)}",
        f"<think>{thinking}</think><answer></answer>",
        f"<think>{thinking}<answer>{answer}</answer></think>",
        f"<Think>{thinking}</Think><answer>{answer}</answer>",
        compose(thinking, answer) + compose("", answer),
        f"Here is the answer. {compose(thinking, answer)}",
    )
    return broken[rng.integers(len(broken))]


def _length(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """One word, or the same words again and again."""
    words = thinking.split()
    if rng.random() < 0.5:
        return compose(words[0], answer)
    return compose(" ".join((words * (_LONG_WORDS // len(words) + 1))[:_LONG_WORDS]), answer)


def _answer_length(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """The right answer, again and again."""
    words = answer.split()
    return compose(thinking, " ".join((words * (_LONG_WORDS // len(words) + 1))[:_LONG_WORDS]))


def _steps(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """As long, but without a step: only dots."""
    return compose(" ".join("." for _ in thinking.split()), answer)


def _target(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """About another thing, which neither the question nor the target has to do with: wholly, or in the last step."""
    near = {*sample.object_ids, *identifiers(sample.question), *identifiers(answer)}
    said = set(re.findall(r"[a-z]+", f"{sample.question} {thinking}".lower()))
    others = [o for o in room.things if o.id not in near and not said & set(o.label.split())]
    if not others or identifiers(answer):
        return None
    other = others[rng.integers(len(others))]
    before = f"{thinking}. " if rng.random() < 0.5 else ""
    return compose(f"{before}{other.label} {identifier(other.id)} {SO} {answer}", answer)


def _consistency(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """The reasoning leads to another answer than the one given."""
    if not thinking.endswith(answer) or identifiers(answer):
        return None
    other = _other(answer, room, rng)
    return compose(thinking[: len(thinking) - len(answer)] + other, answer) if other is not None else None


def _wrong_answer(sample: Sample, room: Room, thinking: str, answer: str, rng: Rng) -> str | None:
    """The reasoning is right, the answer another than it leads to; of several references it is none."""
    if identifiers(answer):
        others = [identifier(o.id) for o in room.things if o.id not in sample.object_ids]
    else:
        references = {clean_answer(reference) for reference in sample.answers}
        others = [
            word for word in [_other(answer, room, rng)] if word is not None and clean_answer(word) not in references
        ]
    return compose(thinking, others[rng.integers(len(others))]) if others else None


def _other(answer: str, room: Room, rng: Rng) -> str | None:
    """A wrong answer of the same kind, or a label of the room."""
    pools = [kind for kind in _KINDS if answer.lower() in kind]
    pool = pools[0] if pools else tuple(room.labels)
    wrong = [word for word in pool if clean_answer(word) not in clean_answer(answer)]
    return wrong[rng.integers(len(wrong))] if wrong else None


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "format": _format,
        "length": _length,
        "answer_length": _answer_length,
        "steps": _steps,
        "target": _target,
        "consistency": _consistency,
        "wrong_answer": _wrong_answer,
    }
)
"""By kind: the name of the filter that is to catch it, unless `OTHERWISE_CAUGHT` has another."""

OTHERWISE_CAUGHT: Mapping[str, str] = MappingProxyType({"wrong_answer": "consistency"})
"""The filter that is to catch a fault, where they differ in name."""
