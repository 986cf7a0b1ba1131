"""The answer grammar: `<think>...</think><answer>...</answer>`, or the answer alone.

The one parser; format reward, evaluation and serving all ask it. It knows nothing about tokens.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from r1pipe.geometry import Box

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_IDENTIFIER = re.compile(r"<obj_(\d{3})>")
_LIST = re.compile(r"<obj_\d{3}>(?:\s*<obj_\d{3}>)*")
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
    tags = TAGS if think else TAGS[2:]
    if any(text.count(tag) != (tag in tags) for tag in TAGS):
        return None
    # Each tag stands once, so splitting at them in order gives every part; linear in the length of the text.
    parts, rest = [], text
    for tag in tags:
        part, found, rest = rest.partition(tag)
        if not found:
            return None
        parts.append(part.strip())
    if rest.strip() or any(parts[::2]) or not all(parts[1::2]):
        return None
    *thinking, answer = map(_spaced, parts[1::2])
    return Response(thinking[0] if thinking else "", answer)


def _spaced(text: str) -> str:
    """The text with one space around each identifier: tokenizers do not keep them."""
    return re.sub(r"\s+", " ", _IDENTIFIER.sub(r" \g<0> ", text)).strip()


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
    """The text with each object's number replaced, or None where two objects would have one number, or one none.

    A run of identifiers is a list, which has no order of its own: it is put in ascending order.
    """
    used = [names.get(index) for index in identifiers(text)]
    if None in used or len(set(used)) < len(used):
        return None
    return _LIST.sub(lambda match: _ascending(names[index] for index in identifiers(match[0])), text)


def _ascending(indices: Iterable[int]) -> str:
    return " ".join(map(identifier, sorted(indices)))
