"""The rooms that a server knows: those of its bundle, and the scans that were uploaded, as many as fit."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from r1pipe.errors import MissingError
from r1pipe.models.features import SceneFeatures
from r1pipe.params.scenes import Render
from r1pipe.scenes.scene import Scene
from r1pipe.serving import telemetry
from r1pipe.serving.answer import BusyError
from r1pipe.serving.scans import ScanFile, decode_scan
from r1pipe.views.cameras import Cameras
from r1pipe.views.pictures import enlarged
from r1pipe.views.renderer import render
from r1pipe.views.views import Views, render_scene

MAX_UPLOADS = 16
"""Uploaded rooms that a server remembers; the one that was asked about longest ago is forgotten."""

MAX_TAKING_IN = 4
"""Scans on their way in, each with its file in memory."""

SPLAT = 100
"""Half-widths of a point in a photograph's width."""


class SceneEncoder(Protocol):
    """What `r1pipe.models.encoders.encoding.Encoders` offers here."""

    def encode(self, scene: Scene, views: Views) -> SceneFeatures:
        """The frozen encoders' view of a scene."""
        ...


class Shelf(Protocol):
    """Where features are kept for the model to read: `r1pipe.models.r1.answering.Answerer`."""

    @property
    def scene_ids(self) -> list[str]:
        """The scenes that can be asked about."""
        ...

    def features(self, scene_id: str) -> SceneFeatures:
        """The encoders' view of a scene."""
        ...

    def add(self, features: SceneFeatures) -> None:
        """Make another scene askable."""
        ...

    def remove(self, scene_id: str) -> None:
        """Forget a scene that `add` brought."""
        ...


class Room(NamedTuple):
    """A room to look at."""

    scene: Scene
    views: Views

    def cameras(self, numbers: Sequence[int]) -> Cameras:
        """Those of the views of these numbers."""
        return self.views.cameras.take(np.array(numbers, dtype=np.intp))

    def photographs(self, numbers: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """`(V, H, W, 3)`: views of these numbers again, larger than the encoders saw them; `size` is (W, H), pixels."""
        cameras = self.cameras(numbers).fitted(size)
        seen = render(self.scene.xyz, self.scene.rgb, cameras, radius=max(1, size[0] // SPLAT), fill_holes=True).rgb
        for row, picture in self.taken(numbers, size).items():
            seen[row] = np.asarray(picture)
        return seen

    def taken(self, numbers: Sequence[int], size: tuple[int, int]) -> dict[int, Image.Image]:
        """The photographs among the views of these numbers, by their place in `numbers`, as large as `size`."""
        views = self.views
        rows = [row for row, number in enumerate(numbers) if views.photographed[number]]
        return {row: enlarged(Image.fromarray(views.rgb[numbers[row]]), size) for row in rows}


class Rooms:
    """Safe to share between threads."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        scenes: Path,
        views: Path,
        encoders: Callable[[], SceneEncoder],
        settings: Render,
        voxel_size: float,
    ) -> None:
        """`encoders` is called when the first scan is uploaded."""
        self._shelf, self._scenes, self._views = shelf, scenes, views
        self._bundled = frozenset(shelf.scene_ids)
        self._uploads: OrderedDict[str, Room] = OrderedDict()
        self._load_encoders = encoders
        self._encoders: SceneEncoder | None = None
        self._render, self._voxel_size = settings, voxel_size
        self._encoding = threading.Lock()
        self._changing = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_TAKING_IN)

    def ids(self) -> list[str]:
        """The rooms that can be asked about, uploaded ones last."""
        with self._changing:
            return [*sorted(self._bundled), *self._uploads]

    def is_uploaded(self, scene_id: str) -> bool:
        """Whether a room came as a scan, and is still remembered."""
        return scene_id in self._uploads

    def features(self, scene_id: str) -> SceneFeatures:
        """What the encoders made of a room.

        Raises:
            MissingError: if the server does not know the room.
        """
        with self._changing:
            if scene_id in self._uploads:
                self._uploads.move_to_end(scene_id)
            known = scene_id in self._uploads or scene_id in self._bundled
        if not known:
            ids = self.ids()
            raise MissingError(
                f"Expected one of {len(ids)} known scenes ({', '.join(ids[:3])}, ...), found {scene_id[:80]!r}."
            )
        return self._shelf.features(scene_id)

    def room(self, scene_id: str) -> Room:
        """A room to look at.

        Raises:
            MissingError: if the server does not know the room.
        """
        self.features(scene_id)
        if (upload := self._uploads.get(scene_id)) is not None:
            return upload
        return Room(Scene.load(self._scenes, scene_id), Views.load(self._views, scene_id))

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place for one scan on its way in.

        Raises:
            BusyError: if as many as there are places are on their way.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError(
                f"Expected at most {MAX_TAKING_IN} scans to be taken in at once, found as many; send it again later.",
                retry_after=5,
            )
        try:
            yield
        finally:
            self._slots.release()

    def add(self, file: ScanFile) -> str:
        """Take in a scan; its id, the same for the same content.

        Raises:
            DataError: if it is too large, damaged, not in metres or of another kind.
        """
        if self._is_known(file.id):
            return file.id
        with self._encoding:
            return self._encoded(file.id, lambda: decode_scan(file, voxel_size=self._voxel_size))

    def add_scene(self, scene: Scene) -> str:
        """Take in a scene that is not among those of the bundle; its id."""
        with self._encoding:
            return self._encoded(scene.id, lambda: scene)

    def _encoded(self, scene_id: str, read: Callable[[], Scene]) -> str:
        """One at a time: it takes seconds and all cores. Another thread may have brought the scene meanwhile."""
        if self._is_known(scene_id):
            return scene_id
        start = perf_counter()
        scene = read()
        views = render_scene(scene, self._render)
        self._encoders = self._encoders or self._load_encoders()
        features = self._encoders.encode(scene, views)
        with self._changing:
            self._shelf.add(features)
            self._uploads[scene_id] = Room(scene, views)
            while len(self._uploads) > MAX_UPLOADS:
                oldest, _ = self._uploads.popitem(last=False)
                self._shelf.remove(oldest)
        telemetry.SCENE_CACHE.labels("miss").inc()
        telemetry.observe_steps({"encoded": perf_counter() - start})
        return scene_id

    def _is_known(self, scene_id: str) -> bool:
        with self._changing:
            if scene_id in self._uploads:
                self._uploads.move_to_end(scene_id)
                telemetry.SCENE_CACHE.labels("hit").inc()
                return True
            return scene_id in self._bundled
