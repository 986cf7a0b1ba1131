"""The model that a server has loaded: asked by the HTTP API, the page and `r1pipe ask` alike."""

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from r1pipe.errors import DataError
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.hearing import Grown
from r1pipe.models.r1.prompts import Request
from r1pipe.params import Params
from r1pipe.params.encoders import Encode
from r1pipe.params.run import Think
from r1pipe.params.scenes import Render
from r1pipe.params.section import Task
from r1pipe.params.serving import Serve
from r1pipe.response import Response, answer_boxes, identifier, identifiers, parse
from r1pipe.scenes.scene import Scene
from r1pipe.serving import telemetry
from r1pipe.serving.answer import Answer, Ask, BusyError, LateError, Mention, SceneRow, ViewScore
from r1pipe.serving.batching import Batcher, Said
from r1pipe.serving.bundle import Bundle
from r1pipe.serving.rooms import Room, Rooms, SceneEncoder
from r1pipe.serving.scans import open_scan
from r1pipe.views.choice import ViewChoice

CANARY = "what is in the room?"


@dataclass(frozen=True)
class Settings:
    """What serving needs of the parameters that made the model."""

    think: Think
    render: Render
    voxel_size: float
    max_new_tokens: int
    serve: Serve
    tasks: tuple[Task, ...]
    """Those that the model was trained for."""

    @classmethod
    def of(cls, params: Params) -> Self:
        """Those of a run."""
        tasks = tuple(sorted({*params.sft.tasks, *params.grpo.tasks}))
        evaluated = params.evaluate.max_new_tokens
        return cls(params.think, params.render, params.prepare.voxel_size, evaluated, params.serve, tasks)


class ServedModel:
    """Answers the questions that wait together; safe to share between threads."""

    def __init__(
        self,
        answerer: Answerer,
        settings: Settings,
        *,
        name: str,
        lineage: Mapping[str, Any],
        scenes: Path,
        views: Path,
        encoders: Callable[[], SceneEncoder],
    ) -> None:
        """Serve a loaded model; `encoders` is called when the first scan is uploaded."""
        self.name = name
        self.lineage = dict(lineage)
        self.settings = settings
        self._answerer = answerer
        self.rooms = Rooms(
            answerer,
            scenes=scenes,
            views=views,
            encoders=encoders,
            settings=settings.render,
            voxel_size=settings.voxel_size,
        )
        limits = settings.serve
        generate = partial(answerer.answer, think=settings.think, max_new_tokens=settings.max_new_tokens)
        self._batcher = Batcher(generate, max_batch_size=limits.max_batch_size, max_waiting=limits.max_waiting)

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """The model of a bundle.

        Raises:
            MissingError: if a file of the bundle is not there.
            DataError: if another version of r1pipe packaged it.
        """
        lineage, params = bundle.lineage(), bundle.parameters()
        return cls(
            Answerer.load(bundle.model, features=bundle.features, backbones=bundle.backbones),
            Settings.of(params),
            name=f"{lineage['name']}:{lineage['version']}",
            lineage=lineage,
            scenes=bundle.scenes,
            views=bundle.views,
            encoders=lambda: load_encoders(bundle.backbones, params.encode),
        )

    def close(self) -> None:
        """Answer what waits, then take no more."""
        self._batcher.close()

    def scene_ids(self) -> list[str]:
        """The rooms that can be asked about, uploaded ones last."""
        return self.rooms.ids()

    def rows(self) -> list[SceneRow]:
        """The rooms, with what there is to know before asking."""
        return [
            SceneRow(
                scene_id=scene_id,
                num_objects=len(self._answerer.features(scene_id).object_boxes),
                uploaded=self.rooms.is_uploaded(scene_id),
            )
            for scene_id in self.scene_ids()
        ]

    def features(self, scene_id: str) -> SceneFeatures:
        """What the encoders made of a room.

        Raises:
            MissingError: if the server does not know the room.
        """
        return self.rooms.features(scene_id)

    def room(self, scene_id: str) -> Room:
        """A room to look at.

        Raises:
            MissingError: if the server does not know the room.
        """
        return self.rooms.room(scene_id)

    def add(self, content: bytes, filename: str) -> str:
        """Take in the scan in an uploaded file of `scans.FORMATS`; its id, the same for the same content.

        Raises:
            DataError: if it is too large, damaged, not in metres or of another kind.
            BusyError: if too many scans are on their way in.
        """
        with self.rooms.slot():
            return self.rooms.add(open_scan(content, filename))

    def add_scene(self, scene: Scene) -> str:
        """Take in a scene that is not among those of the bundle; its id."""
        return self.rooms.add_scene(scene)

    def check(self) -> None:
        """Answer a question: a server that cannot is not ready.

        Raises:
            R1Error: if it cannot.
        """
        for scene_id in self.scene_ids()[:1]:
            self.answer(Ask(scene_id=scene_id, question=CANARY))

    def is_ready(self) -> bool:
        """Whether the model answers; one that is too busy for a question more answers others.

        Raises:
            R1Error: if it does not.
        """
        with contextlib.suppress(BusyError):
            self.check()
        return True

    def begin(self, ask: Ask, grown: Grown | None = None) -> Future[Said]:
        """Ask the model; `finish` makes an answer of what it says. `grown` is told the text as it grows.

        Raises:
            MissingError: if the server does not know the room.
            DataError: if the question names an object that was not detected, or is too long.
            BusyError: if too many questions wait.
        """
        return self._batcher.submit(self._request(ask), grown)

    def answer(self, ask: Ask) -> Answer:
        """What the model says, and what it looked at.

        Raises:
            MissingError, DataError, BusyError: as `begin`.
            LateError: if it takes longer than the settings allow.
        """
        return self.finish(ask, self._result(self.begin(ask)))

    def stream(self, ask: Ask) -> Iterator[str | Answer]:
        """The completion as it grows, whole each time, and the answer at the end.

        Raises:
            MissingError, DataError, BusyError, LateError: as `answer`.
        """
        texts: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        said = self.begin(ask, texts.put)
        said.add_done_callback(lambda _: texts.put(None))
        deadline = time.monotonic() + self.settings.serve.timeout_s
        try:
            while (text := texts.get(timeout=max(0, deadline - time.monotonic()))) is not None:
                yield text
        except queue.Empty:
            raise self.late() from None
        finally:
            said.cancel()  # does nothing once it has begun
        yield self.finish(ask, said.result())

    def _result(self, said: Future[Said]) -> Said:
        try:
            return said.result(self.settings.serve.timeout_s)
        except TimeoutError:
            said.cancel()
            raise self.late() from None

    def late(self) -> LateError:
        """What is said when an answer takes too long."""
        telemetry.REFUSED.labels("late").inc()
        return LateError(f"Expected an answer within {self.settings.serve.timeout_s:g} s, found none; ask again later.")

    def look(self, ask: Ask) -> list[ViewChoice]:
        """Every candidate view of the room with its scores for the question, without answering it.

        Raises:
            MissingError: if the server does not know the room.
            DataError: if the question names an object that was not detected, or is too long.
        """
        return self._answerer.views(self._request(ask))

    def _request(self, ask: Ask) -> Request:
        features = self.features(ask.scene_id)
        if unknown := unknown_in(ask.question, features):
            raise DataError(
                f"Expected objects of scene {ask.scene_id}, {len(features.object_boxes)} from <obj_000> on, "
                f"in the question, found {unknown[0]}."
            )
        request = Request(ask.scene_id, ask.kind, ask.question, ask.pose, ask.history)
        self._answerer.check(request, max_tokens=self.settings.serve.max_prompt_tokens)
        return request

    def finish(self, ask: Ask, said: Said) -> Answer:
        """The answer that a completion is, with what the model looked at."""
        start = time.perf_counter()
        features = self.features(ask.scene_id)
        completion = said.completion.text
        parsed = parse(completion, think=self.settings.think.on(ask.kind))
        response = parsed or Response("", completion.strip())
        views = self.look(ask)
        timings = {"waited": said.waited, "answered": said.answered, "looked": time.perf_counter() - start}
        telemetry.observe_steps(timings)
        telemetry.COMPLETION_TOKENS.labels(ask.kind).inc(said.completion.num_tokens)
        return Answer(
            scene_id=ask.scene_id,
            task=ask.kind,
            question=ask.question,
            thinking=response.thinking,
            answer=response.answer,
            boxes=answer_boxes(response.answer, features.boxes()),
            objects=Mention.all_in(f"{ask.question} {completion}", features),
            views=[ViewScore.of(choice, features) for choice in views],
            model=self.name,
            warnings=self._warnings(ask.kind, parsed is not None, unknown_in(completion, features)),
            timings={name: round(seconds, 4) for name, seconds in timings.items()},
        )

    def _warnings(self, task: Task, grammatical: bool, unknown: Sequence[str]) -> list[str]:
        tasks = self.settings.tasks
        warnings = [] if task in tasks else [f"The model was trained for {', '.join(tasks)}, not for {task}."]
        if not grammatical:
            warnings.append("The completion does not follow the answer grammar; the answer holds all of it.")
        if unknown:
            warnings.append(f"The completion names objects that were not detected: {', '.join(unknown)}.")
        return warnings


def unknown_in(text: str, features: SceneFeatures) -> list[str]:
    """Identifiers in a text that name no detected object."""
    return [identifier(i) for i in identifiers(text) if i >= len(features.object_boxes)]


def load_encoders(backbones: Path, params: Encode) -> SceneEncoder:
    """The frozen encoders of a folder; loading them takes seconds, and only new scans need them."""
    from r1pipe.models.encoders.encoding import Encoders

    return Encoders.load(backbones, params)
