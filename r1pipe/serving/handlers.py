"""What happens on the page: a room is entered, a scan taken in, a question asked; each returns what the page then shows."""

import html
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args

import gradio as gr
import plotly.graph_objects as go
from fastapi import HTTPException

from r1pipe.datasets.sample import Pose
from r1pipe.errors import R1Error
from r1pipe.params.section import Task
from r1pipe.serving import figures, markup
from r1pipe.serving.answer import Answer, Ask, ViewScore
from r1pipe.serving.examples import examples
from r1pipe.serving.figures import Mark
from r1pipe.serving.markup import Turn
from r1pipe.serving.rooms import SPLAT, Room
from r1pipe.serving.served import ServedModel

LABELS: dict[Task, str] = {
    "qa": "Answer a question",
    "grounding": "Point at objects",
    "captioning": "Describe an object",
    "description": "Describe the room",
    "dialogue": "Talk about the room",
    "situated": "Answer from where I stand",
    "planning": "Plan an activity",
}

LARGE, SMALL = (400, 300), (200, 150)
"""Pixels of a view on the page, chosen and not."""

Attached = Callable[[], ServedModel]
Updates = tuple[Any, ...]


class Shown(NamedTuple):
    """What a page shows of its last question, and what was said before it."""

    answer: Answer | None = None
    turns: tuple[Turn, ...] = ()


class Stand(NamedTuple):
    """Where the user stands in the room: metres, and degrees counter-clockwise from +y."""

    x: float
    y: float
    towards: float

    def pose(self) -> Pose:
        """The same as SQA3D has it."""
        half = math.radians(self.towards) / 2
        return Pose(position=(self.x, self.y, 0.0), rotation=(0.0, 0.0, math.sin(half), math.cos(half)))


class Handlers:
    """What happens on a page over the model that `attached` gives once it is loaded."""

    def __init__(self, attached: Attached) -> None:
        self._attached = attached

    def open(self) -> Updates:
        """The rooms, the tasks (those that the model was trained for first) and which model it is."""
        with _toast():
            served = self._attached()
        scene_ids, trained = served.scene_ids(), served.settings.tasks
        tasks = sorted(get_args(Task), key=lambda task: (task not in trained, list(LABELS).index(task)))
        labels = [(LABELS[task] + ("" if task in trained else " (not trained for it)"), task) for task in tasks]
        rooms = gr.Dropdown(choices=scene_ids, value=next(iter(scene_ids), None))
        return rooms, gr.Dropdown(choices=labels, value=tasks[0]), f"Model `{served.name}`"

    def enter(self, scene_id: str | None, task: Task) -> Updates:
        """A room before anything was asked about it."""
        if not scene_id:
            return (gr.skip(),) * 9
        with _toast():
            served = self._attached()
            features, scene = served.features(scene_id), served.room(scene_id).scene
        low, high = scene.xyz.min(axis=0).round(1).tolist(), scene.xyz.max(axis=0).round(1).tolist()
        middle = [round((low[axis] + high[axis]) / 2, 1) for axis in (0, 1)]
        stand = [gr.Slider(minimum=low[axis], maximum=high[axis], value=middle[axis]) for axis in (0, 1)]
        picture = self.draw(scene_id, task, Shown(), False, *middle, 0.0)
        return Shown(), picture, markup.unasked(), "", "", markup.objects(features), *stand, 0

    def switch(self, task: Task, scene_id: str | None) -> Updates:
        """The task's own inputs and questions."""
        if not scene_id:
            return (gr.skip(),) * 4
        with _toast():
            questions = examples(task, self._attached().features(scene_id))
        samples = gr.Dataset(samples=[[question] for question in questions], visible=bool(questions))
        return (
            next(iter(questions), ""),
            samples,
            gr.Group(visible=task == "situated"),
            gr.Button(visible=task == "dialogue"),
        )

    def take_in(self, path: str) -> Any:
        """An uploaded scan becomes a room; what is wrong with it is said over the page, which stays as it was."""
        try:
            served = self._attached()
            scene_id = served.add(Path(path).read_bytes(), Path(path).name)
        except (R1Error, HTTPException) as error:
            # The page takes the message for HTML.
            gr.Warning(html.escape(_sentence(error)), duration=20, title="Not taken in")
            return gr.skip()
        return gr.Dropdown(choices=served.scene_ids(), value=scene_id)

    def draw(self, scene_id: str | None, task: Task, shown: Shown, every: bool, *stand: float) -> go.Figure | None:
        """The room with what was answered about it; with `every`, all detected objects too; `stand` as in `Stand`."""
        if not scene_id:
            return None
        with _toast():
            served = self._attached()
            room, features = served.room(scene_id), served.features(scene_id)
        called = markup.names(features)
        marks = _marks(shown.answer, called) if shown.answer else []
        if every:
            named = {mark.box for mark in marks}
            marks += [Mark(called[key], box, "detected") for key, box in features.boxes().items() if box not in named]
        chosen = [view.view for view in shown.answer.views if view.chosen] if shown.answer else []
        return figures.room(
            room.scene,
            marks,
            views=room.cameras(chosen) if chosen else None,
            pose=Stand(*stand).pose() if task == "situated" else None,
        )

    def ask(
        self,
        scene_id: str | None,
        task: Task,
        question: str,
        shown: Shown,
        every: bool,
        *stand: float,
    ) -> Iterator[Updates]:
        """The reasoning as it grows, then everything; a refusal is a sentence where the answer would stand."""
        keep = gr.skip()
        turns = shown.turns if task == "dialogue" else ()
        try:
            ask = _question(scene_id, task, question, turns, Stand(*stand))
            served = self._attached()
            called = markup.names(served.features(ask.scene_id))
            yield keep, markup.partial("", turns, called), keep, keep, keep
            for step in served.stream(ask):
                if not isinstance(step, Answer):
                    yield keep, markup.partial(step, turns, called), keep, keep, keep
                    continue
                said = (*turns, Turn(question, step.answer)) if task == "dialogue" else ()
                now = Shown(step, said)
                picture = self.draw(ask.scene_id, task, now, every, *stand)
                yield (
                    now,
                    markup.finished(step, turns, called, _marks(step, called)),
                    picture,
                    *_views(step, served.room(ask.scene_id), called),
                )
        except (R1Error, HTTPException) as error:
            yield keep, markup.refused(_sentence(error), turns), keep, keep, keep

    def restart(self) -> Updates:
        """A conversation from its start."""
        return Shown(), markup.unasked()


def _question(scene_id: str | None, task: Task, question: str, turns: Sequence[Turn], stand: Stand) -> Ask:
    """What the page asks.

    Raises:
        DataError: if it is no question about a room.
    """
    fields: dict[str, Any] = {"scene_id": scene_id or "", "task": task, "question": question.strip()}
    if task == "situated":
        fields["pose"] = stand.pose()
    if task == "dialogue":
        fields["history"] = [text for turn in turns for text in turn]
    return Ask.read(fields)


def _marks(answer: Answer, called: dict[str, str]) -> list[Mark]:
    pointed = set(answer.boxes)
    marks = [Mark(called[o.id], o.box, "answer" if o.box in pointed else "named") for o in answer.objects]
    named = {mark.box for mark in marks}
    return marks + [Mark("box", box, "answer") for box in answer.boxes if box not in named]


def _views(answer: Answer, room: Room, called: dict[str, str]) -> tuple[str, str]:
    """Cards of the chosen views, the most useful first, and of the others."""
    ranked = sorted(answer.views, key=lambda view: -view.utility)
    marks = _marks(answer, called)

    def cards(some: list[ViewScore], size: tuple[int, int], title: str = "") -> str:
        numbers = [view.view for view in some]
        cameras, taken = room.cameras(numbers).fitted(size), room.taken(numbers, size)
        pictures = figures.photographs(room.scene, cameras, marks, taken, radius=size[0] // SPLAT)
        return markup.views(some, pictures, answer.views, title)

    chosen, others = ([view for view in ranked if view.chosen is kept] for kept in (True, False))
    return cards(chosen, LARGE, "Views that the model looked at"), cards(others, SMALL)


def _sentence(error: R1Error | HTTPException) -> str:
    return error.detail if isinstance(error, HTTPException) else str(error)


@contextmanager
def _toast() -> Iterator[None]:
    """Show a refusal as a sentence over the page."""
    try:
        yield
    except (R1Error, HTTPException) as error:
        raise gr.Error(html.escape(_sentence(error)), title="Not done", print_exception=False) from None
