"""What the page says, as HTML: answers as they grow, views with their scores, the objects of a room.

Every text goes through a template that escapes it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL.Image import Image

from r1pipe.geometry import Box
from r1pipe.models.features import SceneFeatures
from r1pipe.response import TAGS, identifier
from r1pipe.serving.answer import Answer, ViewScore
from r1pipe.serving.figures import Mark
from r1pipe.views.pictures import jpeg_uri

SCORES = (("text-3D", "text3d"), ("image-3D", "image3d"), ("CLIP", "clip"), ("utility", "utility"))
"""What the page calls a view's scores, and what an answer does; the last is the one that chooses."""

_IDENTIFIER = re.compile(r"(<obj_\d{3}>)")
_ENVIRONMENT = Environment(
    loader=PackageLoader("r1pipe", "serving"), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
)  # fmt: skip


class Piece(NamedTuple):
    """A piece of what a model said: plain text, or the name of an object."""

    text: str
    object: str


class Turn(NamedTuple):
    """A question and what the model answered."""

    question: str
    answer: str


def names(features: SceneFeatures) -> dict[str, str]:
    """What the page calls each detected object: its class and its number, `chair 3` for `<obj_003>`."""
    return {identifier(i): f"{label} {i}" for i, label in enumerate(features.object_labels)}


def pieces(text: str, called: dict[str, str]) -> list[Piece]:
    """The text cut at the identifiers of known objects; an unknown one stays text."""
    parts = (part for part in _IDENTIFIER.split(text) if part)
    return [Piece(part, called.get(part, "")) for part in parts]


def growing(completion: str) -> tuple[str, str]:
    """Reasoning and answer of a completion that is not whole yet.

    >>> growing("<think>chair <obj_001> red</think><answer>re")
    ('chair <obj_001> red', 're')
    """
    before, _, after = completion.partition("<answer>")
    thinking, answer = (_untagged(part) for part in (before, after))
    return thinking, answer


def _untagged(text: str) -> str:
    for tag in TAGS:
        text = text.replace(tag, "")
    return text.strip()


def unasked() -> str:
    """Where an answer will stand."""
    return _answer((), {}, asked=False)


def refused(sentence: str, turns: Sequence[Turn]) -> str:
    """Why there is no answer."""
    return _answer(turns, {}, refusal=sentence)


def partial(completion: str, turns: Sequence[Turn], called: dict[str, str]) -> str:
    """The answer as far as it has come."""
    thinking, answer = growing(completion)
    return _answer(turns, called, thinking=thinking, answer=answer)


def finished(answer: Answer, turns: Sequence[Turn], called: dict[str, str], marks: Sequence[Mark]) -> str:
    """The answer, the boxes that are marked in the room, and what to know before one trusts it."""
    scores = {called[thing.id]: thing.score for thing in answer.objects}
    return _answer(
        turns,
        called,
        thinking=answer.thinking,
        answer=answer.answer,
        done=True,
        warnings=answer.warnings,
        objects=[
            {"name": mark.name, "role": mark.role, "score": scores.get(mark.name), **_extent(mark.box)}
            for mark in marks
        ],
        took=f"{answer.model} answered in {answer.timings['answered']:.2f} s",
    )


def _answer(
    turns: Sequence[Turn], called: dict[str, str], *, thinking: str = "", answer: str = "", **facts: Any
) -> str:
    blank: dict[str, Any] = {"asked": True, "done": False, "refusal": "", "warnings": (), "objects": (), "took": ""}
    return _ENVIRONMENT.get_template("answer.html.j2").render(
        blank
        | facts
        | {
            "turns": [(turn.question, pieces(turn.answer, called)) for turn in turns],
            "thinking": pieces(thinking, called),
            "answer": pieces(answer, called),
        }
    )


def _extent(box: Box) -> dict[str, str]:
    return {
        "size": " x ".join(f"{length:.2f}" for length in box.size),
        "centre": _metres(box.centre),
    }


def _metres(position: Sequence[float]) -> str:
    return ", ".join(f"{round(x, 1) + 0.0:.1f}" for x in position)  # + 0.0 turns -0.0 into 0.0


def views(shown: Sequence[ViewScore], pictures: Sequence[Image], among: Sequence[ViewScore], title: str) -> str:
    """Cards of views below a title, their scores as bars from the least to the greatest `among` all candidates."""
    cards = [
        {
            "view": view.view,
            "picture": jpeg_uri(picture, quality=85),
            "width": picture.width,
            "height": picture.height,
            "position": _metres([row[3] for row in view.camera[:3]]),
            "scores": [_score(label, name, view, among) for label, name in SCORES],
        }
        for view, picture in zip(shown, pictures, strict=True)
    ]
    return _ENVIRONMENT.get_template("views.html.j2").render(cards=cards, title=title)


def _score(label: str, name: str, view: ViewScore, among: Sequence[ViewScore]) -> dict[str, Any]:
    values = [getattr(other, name) for other in among]
    value, low, high = getattr(view, name), min(values), max(values)
    return {"name": label, "value": value, "share": (value - low) / (high - low) if high > low else 1.0}


def objects(features: SceneFeatures) -> str:
    """A table of a room's detected objects."""
    rows = [
        {
            "id": identifier(i),
            "label": label,
            "score": float(features.object_scores[i]),
            **_extent(Box(*map(float, features.object_boxes[i]))),
        }
        for i, label in enumerate(features.object_labels)
    ]
    return _ENVIRONMENT.get_template("objects.html.j2").render(objects=rows)
