"""The model that a server has loaded, and the rooms it knows: asked by the HTTP API, the page and `r1pipe ask` alike."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import Box
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.prompts import Request
from r1pipe.params import Encode, Params, Render, Task, Think
from r1pipe.response import Response, answer_boxes, identifier, identifiers, parse
from r1pipe.scenes.scene import Scene
from r1pipe.serving.answer import Answer, Ask, Mention, SceneRow, ViewScore
from r1pipe.serving.bundle import Bundle
from r1pipe.serving.scans import decode_scan
from r1pipe.views.choice import ViewChoice
from r1pipe.views.renderer import render
from r1pipe.views.views import Views, render_scene

if TYPE_CHECKING:
    # torch comes with a model, not with the service's definition: a Bento is built without it.
    from r1pipe.models.r1.answering import Answerer

MAX_UPLOADS = 16
"""Uploaded rooms that a server remembers; the oldest is forgotten."""

SPLAT = 100
"""Half-widths of a point in a photograph's width."""


class SceneEncoder(Protocol):
    """What `r1pipe.models.encoders.encoding.Encoders` offers here."""

    def encode(self, scene: Scene, views: Views) -> SceneFeatures:
        """The frozen encoders' view of a scene."""
        ...


class Room(NamedTuple):
    """A room to look at."""

    scene: Scene
    views: Views

    def photographs(self, numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """`(V, H, W, 3)`: views of these numbers again, larger than the encoders saw them; `size` is (W, H), pixels."""
        cameras = self.views.cameras.take(np.array(numbers, dtype=np.intp)).fitted(size)
        return render(self.scene.xyz, self.scene.rgb, cameras, radius=max(1, size[0] // SPLAT), fill_holes=True).rgb


@dataclass(frozen=True)
class Settings:
    """What serving needs of the parameters that made the model."""

    think: Think
    render: Render
    voxel_size: float
    max_new_tokens: int
    tasks: tuple[Task, ...]
    """Those that the model was trained for."""

    @classmethod
    def of(cls, params: Params) -> Self:
        """Those of a run."""
        tasks = tuple(sorted({*params.sft.tasks, *params.grpo.tasks}))
        return cls(params.think, params.render, params.prepare.voxel_size, params.evaluate.max_new_tokens, tasks)


class ServedModel:
    """Answers one question at a time; safe to share between threads."""

    def __init__(
        self,
        answerer: "Answerer",
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
        self._scenes, self._views = scenes, views
        self._load_encoders = encoders
        self._encoders: SceneEncoder | None = None
        self._uploads: dict[str, Room] = {}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """The model of a bundle.

        Raises:
            MissingError: if a file of the bundle is not there.
        """
        from r1pipe.models.r1.answering import Answerer

        lineage, params = bundle.lineage(), Params.load(bundle.params)
        return cls(
            Answerer.load(bundle.model, features=bundle.features, backbones=bundle.backbones),
            Settings.of(params),
            name=f"{lineage['name']}:{lineage['version']}",
            lineage=lineage,
            scenes=bundle.scenes,
            views=bundle.views,
            encoders=lambda: load_encoders(bundle.backbones, params.encode),
        )

    def scene_ids(self) -> list[str]:
        """The rooms that can be asked about, uploaded ones last."""
        return [*sorted(set(self._answerer.scene_ids) - set(self._uploads)), *self._uploads]

    def rows(self) -> list[SceneRow]:
        """The rooms, with what there is to know before asking."""
        return [
            SceneRow(
                scene_id=scene_id,
                num_objects=len(self._answerer.features(scene_id).object_boxes),
                uploaded=scene_id in self._uploads,
            )
            for scene_id in self.scene_ids()
        ]

    def features(self, scene_id: str) -> SceneFeatures:
        """What the encoders made of a room.

        Raises:
            MissingError: if the server does not know the room.
        """
        known = self.scene_ids()
        if scene_id not in known:
            some = ", ".join(known[:3])
            raise MissingError(f"Expected one of {len(known)} known scenes ({some}, ...), found {scene_id!r}.")
        return self._answerer.features(scene_id)

    def room(self, scene_id: str) -> Room:
        """A room to look at.

        Raises:
            MissingError: if the server does not know the room.
        """
        self.features(scene_id)
        if (upload := self._uploads.get(scene_id)) is not None:
            return upload
        return Room(Scene.load(self._scenes, scene_id), Views.load(self._views, scene_id))

    def add(self, content: bytes, filename: str) -> str:
        """Take in the scan in an uploaded `.ply` or `.npz` file; its id, the same for the same content.

        Raises:
            DataError: if it is too large, damaged, not in metres or of another kind.
        """
        return self.add_scene(decode_scan(content, filename, voxel_size=self.settings.voxel_size))

    def add_scene(self, scene: Scene) -> str:
        """Take in a scene that is not among those of the bundle; its id."""
        with self._lock:
            if scene.id not in self._answerer.scene_ids:
                views = render_scene(scene, self.settings.render)
                self._encoders = self._encoders or self._load_encoders()
                self._answerer.add(self._encoders.encode(scene, views))
                self._uploads[scene.id] = Room(scene, views)
            while len(self._uploads) > MAX_UPLOADS:
                oldest = next(iter(self._uploads))
                del self._uploads[oldest]
                self._answerer.remove(oldest)
        return scene.id

    def answer(self, ask: Ask) -> Answer:
        """What the model says, and what it looked at.

        Raises:
            MissingError: if the server does not know the room.
            DataError: if the question names an object that was not detected.
        """
        request = self._request(ask)
        start = time.perf_counter()
        with self._lock:
            waited = time.perf_counter()
            completion = self._answerer.complete(
                [request], think=self.settings.think, max_new_tokens=self.settings.max_new_tokens, batch_size=1
            )[0]
        timings = {"waited": waited - start, "answered": time.perf_counter() - waited}
        return self._answer(ask, completion, timings)

    def stream(self, ask: Ask) -> Iterator[str | Answer]:
        """The completion as it grows, whole each time, and the answer at the end.

        Raises:
            MissingError: if the server does not know the room.
            DataError: if the question names an object that was not detected.
        """
        request = self._request(ask)
        start = time.perf_counter()
        completion = ""
        with self._lock:
            waited = time.perf_counter()
            for piece in self._answerer.stream(
                request, think=self.settings.think, max_new_tokens=self.settings.max_new_tokens
            ):
                completion += piece
                yield completion
        timings = {"waited": waited - start, "answered": time.perf_counter() - waited}
        yield self._answer(ask, completion, timings)

    def look(self, ask: Ask) -> list[ViewChoice]:
        """Every candidate view of the room with its scores for the question, without answering it.

        Raises:
            MissingError: if the server does not know the room.
            DataError: if the question names an object that was not detected.
        """
        request = self._request(ask)
        with self._lock:
            return self._answerer.views(request)

    def _request(self, ask: Ask) -> Request:
        features = self.features(ask.scene_id)
        unknown = [identifier(i) for i in identifiers(ask.question) if i >= len(features.object_boxes)]
        if unknown:
            raise DataError(
                f"Expected objects of scene {ask.scene_id}, {len(features.object_boxes)} from <obj_000> on, "
                f"in the question, found {unknown[0]}."
            )
        return Request(ask.scene_id, ask.kind, ask.question, ask.pose, ask.history)

    def _answer(self, ask: Ask, completion: str, timings: dict[str, float]) -> Answer:
        start = time.perf_counter()
        features = self._answerer.features(ask.scene_id)
        parsed = parse(completion, think=self.settings.think.on(ask.kind))
        response = parsed or Response("", completion.strip())
        views = self.look(ask)
        timings["looked"] = time.perf_counter() - start
        return Answer(
            scene_id=ask.scene_id,
            task=ask.kind,
            question=ask.question,
            thinking=response.thinking,
            answer=response.answer,
            boxes=answer_boxes(response.answer, features.boxes()),
            objects=_mentions(f"{ask.question} {completion}", features),
            views=[_view_score(choice, features) for choice in views],
            model=self.name,
            warnings=self._warnings(ask.kind, parsed is not None),
            timings={name: round(seconds, 4) for name, seconds in timings.items()},
        )

    def _warnings(self, task: Task, grammatical: bool) -> list[str]:
        tasks = self.settings.tasks
        warnings = [] if task in tasks else [f"The model was trained for {', '.join(tasks)}, not for {task}."]
        if not grammatical:
            warnings.append("The completion does not follow the answer grammar; the answer holds all of it.")
        return warnings


def load_encoders(backbones: Path, params: Encode) -> SceneEncoder:
    """The frozen encoders of a folder; loading them takes seconds, and only new scans need them."""
    from r1pipe.models.encoders.encoding import Encoders

    return Encoders.load(backbones, params)


def _mentions(text: str, features: SceneFeatures) -> list[Mention]:
    return [
        Mention(
            id=identifier(i),
            label=features.object_labels[i],
            score=round(float(features.object_scores[i]), 4),
            box=Box(*map(float, features.object_boxes[i])),
        )
        for i in identifiers(text)
        if i < len(features.object_boxes)
    ]


def _view_score(choice: ViewChoice, features: SceneFeatures) -> ViewScore:
    return ViewScore(camera=features.cameras[choice.view].tolist(), **choice._asdict())
