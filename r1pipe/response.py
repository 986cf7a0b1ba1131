"""The answer grammar: `<think>...</think><answer>...</answer>`, or the answer alone.

The one parser; format reward, evaluation and serving all ask it. It knows nothing about tokens.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from r1pipe.geometry import Box

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_PART = r"((?:(?!</?think>|</?answer>).)*\S(?:(?!</?think>|</?answer>).)*)"
_THOUGHT = re.compile(rf"\s*<think>{_PART}</think>\s*<answer>{_PART}</answer>\s*", re.DOTALL)
_ANSWER = re.compile(rf"\s*<answer>{_PART}</answer>\s*", re.DOTALL)
_IDENTIFIER = re.compile(r"<obj_(\d{3})>")
_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(rf"<box>{','.join([_NUMBER] * 6)}</box>")


class Response(NamedTuple):
    """What a model said: its reasoning (empty where the task asks for none) and its answer."""

    thinking: str
    answer: str


def parse(text: str, *, think: bool) -> Response | None:
    """The response, or None where the text does not follow the grammar.

    Anchored at both ends, each tag once and in order, nothing outside but white space, no part empty.

    >>> parse("<think>chair <obj_001> red</think><answer>red</answer>", think=True)
    Response(thinking='chair <obj_001> red', answer='red')
    >>> parse("<think></think><answer>red</answer>", think=True) is None
    True
    """
    if any(text.count(tag) > 1 for tag in TAGS):
        return None
    match = (_THOUGHT if think else _ANSWER).fullmatch(text)
    if match is None:
        return None
    *thinking, answer = (part.strip() for part in match.groups())
    return Response(thinking[0] if thinking else "", answer)


def compose(thinking: str, answer: str) -> str:
    """The text that `parse` reads back; without reasoning, the answer alone."""
    return (f"<think>{thinking}</think>" if thinking else "") + f"<answer>{answer}</answer>"


def identifier(index: int) -> str:
    """The token that names an object, `<obj_007>` for 7."""
    return f"<obj_{index:03d}>"


def identifiers(text: str) -> list[int]:
    """The objects that a text names, in order, each once."""
    return list(dict.fromkeys(int(digits) for digits in _IDENTIFIER.findall(text)))


def literal_boxes(text: str) -> list[Box]:
    """The boxes written out as `<box>cx,cy,cz,dx,dy,dz</box>`, in order."""
    return [Box(*map(float, numbers)) for numbers in _BOX.findall(text)]


def answer_boxes(answer: str, objects: Mapping[str, Sequence[float]]) -> list[Box]:
    """The boxes that an answer points at: named objects first, then those written out.

    `objects` maps identifiers to boxes; an identifier that names no object points at nothing.
    """
    named = [objects[name] for name in map(identifier, identifiers(answer)) if name in objects]
    return [Box(*map(float, box)) for box in named] + literal_boxes(answer)


def rename(text: str, names: Mapping[int, int]) -> str | None:
    """The text with each object's number replaced, or None where one has no new number."""
    if any(index not in names for index in identifiers(text)):
        return None
    return _IDENTIFIER.sub(lambda match: identifier(names[int(match[1])]), text)
