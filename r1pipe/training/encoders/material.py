"""What the encoders learn from and are measured on: one split's scenes, views and true texts.

Shape suffixes: V views, H, W pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.sample import Sample
from r1pipe.errors import DataError
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene
from r1pipe.training.encoders.pairs import Shown, captions, short_texts, shown
from r1pipe.views.views import Views


class SavedScenes(Sequence[Scene]):
    """Scenes of a folder, read when asked for: a real dataset's clouds do not fit in memory."""

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        self.folder, self.ids = folder, ids

    def __len__(self) -> int:
        """How many scenes."""
        return len(self.ids)

    def __getitem__(self, number: int) -> Scene:  # type: ignore[override]  # a slice is never asked for
        """The scene at this place."""
        return Scene.load(self.folder, self.ids[number])

    def __iter__(self) -> Iterator[Scene]:
        """The scenes in order."""
        return (Scene.load(self.folder, scene_id) for scene_id in self.ids)


@dataclass(frozen=True)
class Material:
    """One split, as the encoders need it."""

    scenes: SavedScenes
    images: tuple[Shown, ...]
    """Whole views and crops, with every text that is true of them."""

    texts: tuple[str, ...]
    """Distinct short answers, phrases and labels."""

    rgb: NDArray[np.uint8]
    """`(V, H, W, 3)`, every view of every scene."""

    depth: NDArray[np.float32]
    """`(V, H, W)`, metres along forward; 0 where there is nothing."""

    @classmethod
    def load(
        cls, scenes: Path, views: Path, samples: Sequence[Sample], *, seed: int, max_scenes: int | None = None
    ) -> Self:
        """Read the scenes that the samples ask about, in the order of their ids.

        Raises:
            DataError: if there is none.
        """
        ids = sorted({sample.scene_id for sample in samples})[:max_scenes]
        if not ids:
            raise DataError("Expected samples of at least one scene to train or measure the encoders on, found none.")
        said = captions(samples)
        images: list[Shown] = []
        rgb, depth = [], []
        for scene in track(SavedScenes(scenes, ids), "read views", total=len(ids)):
            seen = Views.load(views, scene.id)
            images += shown(scene, seen, said, seed)
            rgb.append(seen.rgb)
            depth.append(seen.depth)
        texts = tuple(short_texts(samples, images))
        return cls(SavedScenes(scenes, ids), tuple(images), texts, np.concatenate(rgb), np.concatenate(depth))
