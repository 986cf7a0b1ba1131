"""What a language model is told: the room, the question, and how to answer; the words themselves lie in `templates/`.

A prompt holds no answer: what people said of the objects is left out where it would be one.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from string import Template
from typing import NamedTuple

from r1pipe.datasets import Sample
from r1pipe.params.section import Task
from r1pipe.response import parse
from r1pipe.scenes import Scene
from r1pipe.scenes.graph import ahead
from r1pipe.synthesis.outline import Outline

_TEMPLATES = Path(__file__).with_name("templates")
_VERSION_DIGITS = 12


class Picture(NamedTuple):
    """A view of the room."""

    png: bytes
    digest: str
    """SHA-256 of the pixels: the same picture may be packed in different bytes."""


class Prompt(NamedTuple):
    """What one request says."""

    system: str
    text: str
    pictures: tuple[Picture, ...]
    version: str
    """Of the templates: `prompt_version`."""


class _Told(NamedTuple):
    """What is told of one room."""

    scene: Scene
    outline: Outline
    pictures: tuple[Picture, ...]


class Prompts:
    """Writes prompts; what it tells of a room it keeps while the room's samples come in a row."""

    def __init__(
        self,
        captions: Callable[[str], Mapping[int, str]] = lambda _: {},
        pictures: Callable[[Scene], tuple[Picture, ...]] = lambda _: (),
    ) -> None:
        """Take the two optional sources.

        Args:
            captions: of a scene by its id: a person's description of some objects, by object id.
            pictures: of a scene.
        """
        self._captions = captions
        self._pictures = pictures
        self._last: _Told | None = None

    def first(self, sample: Sample, scene: Scene) -> Prompt:
        """Asks for reasoning and answer; the reference is not in it."""
        _, outline, pictures = self._told(scene)
        text = _template("first").substitute(
            objects=outline.text(captions=sample.task != "grounding", hidden=_described(sample)),
            pictures=f"Pictures of the room: {len(pictures)}, attached.\n" if pictures else "",
            situation=_situation(sample),
            task=_task(sample.task),
            question=_asked(sample),
        )
        return Prompt(_text("system"), _tidy(text), pictures, prompt_version(sample.task))

    def follow_up(self, sample: Sample, text: str | None) -> Prompt | None:
        """The second prompt after a first answer; None where that holds no reasoning."""
        response = parse(text, think=True) if text is not None else None
        return None if response is None else self.second(sample, response.thinking)

    def _told(self, scene: Scene) -> _Told:
        if self._last is None or self._last.scene is not scene:
            self._last = _Told(scene, Outline(scene, self._captions(scene.id)), self._pictures(scene))
        return self._last

    def second(self, sample: Sample, thinking: str) -> Prompt:
        """Asks for the answer that follows from the reasoning; the room is not in it."""
        text = _template("second").substitute(task=_task(sample.task), question=_asked(sample), thinking=thinking)
        return Prompt("", _tidy(text), (), prompt_version(sample.task))


@cache
def prompt_version(task: Task) -> str:
    """The first digits of the SHA-256 over every template that a task's prompts are made of."""
    texts = (_text("system"), _text("first"), _text("second"), _task(task))
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_VERSION_DIGITS]


@cache
def _text(name: str) -> str:
    return (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8").strip()


def _template(name: str) -> Template:
    return Template(_text(name))


def _task(task: Task) -> str:
    return _text(f"tasks/{task}")


def _described(sample: Sample) -> tuple[int, ...]:
    """The objects whose description is the answer."""
    return sample.object_ids if sample.task == "captioning" else ()


def _asked(sample: Sample) -> str:
    return f"{'Description' if sample.task == 'grounding' else 'Question'}: {sample.question}"


def _situation(sample: Sample) -> str:
    """What was said before, and where the person stands."""
    speakers = ("User", "Assistant")
    lines = [f"{speakers[i % 2]}: {turn}\n" for i, turn in enumerate(sample.history)]
    if sample.pose is not None:
        x, y, z = sample.pose.position
        east, north = ahead(sample.pose.rotation)
        lines.append(f"The person stands at ({x:.2f}, {y:.2f}, {z:.2f}) and looks along ({east:.2f}, {north:.2f}).\n")
    return "".join(lines)


def _tidy(text: str) -> str:
    """Without the empty lines that unused places leave."""
    return "\n".join(line for line in text.splitlines() if line.strip())
