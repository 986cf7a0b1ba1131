"""Encoded scenes at hand: features, the scores of their views for a question, and packs' ingredients."""

from functools import lru_cache
from pathlib import Path
from typing import Self

from r1pipe.errors import MissingError
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.encoders.texts import TextTable
from r1pipe.models.features import Float32, SceneFeatures
from r1pipe.scenes.scene import scene_ids
from r1pipe.views.scores import view_scores


class FeatureStore:
    """The features of a folder, read on demand and kept; scenes encoded later can be added."""

    def __init__(self, folder: Path, texts: TextTable) -> None:
        self.folder, self.texts = folder, texts
        self._scenes: dict[str, SceneFeatures] = {}
        self.view_scores = lru_cache(maxsize=100_000)(self._view_scores)

    @classmethod
    def load(cls, folder: Path, clip: Clip | None = None) -> Self:
        """The store of a features folder; with `clip`, questions beyond its table can be asked."""
        return cls(folder, TextTable.load(folder, clip))

    @property
    def scene_ids(self) -> list[str]:
        """The scenes that can be asked about, sorted."""
        return sorted({*scene_ids(self.folder), *self._scenes})

    def add(self, features: SceneFeatures) -> None:
        """Make a scene that is not in the folder askable."""
        self._scenes[features.scene_id] = features

    def remove(self, scene_id: str) -> None:
        """Forget a scene that `add` brought; those of the folder are read again when asked for."""
        self._scenes.pop(scene_id, None)

    def features(self, scene_id: str) -> SceneFeatures:
        """The encoders' view of a scene.

        Raises:
            MissingError: if neither the folder nor `add` brought it.
        """
        if scene_id not in self._scenes:
            if scene_id not in scene_ids(self.folder):
                some = ", ".join(self.scene_ids[:3])
                raise MissingError(
                    f"Expected one of the {len(self.scene_ids)} encoded scenes ({some}, …), found {scene_id!r}."
                )
            self._scenes[scene_id] = SceneFeatures.load(self.folder, scene_id)
        return self._scenes[scene_id]

    def _view_scores(self, scene_id: str, question: str) -> Float32:
        """`(V, 3)`: text3d, image3d, clip of each candidate view."""
        features = self.features(scene_id)
        text_C = self.texts.lookup([question])[0]
        return view_scores(features.clip_images, features.clip_points, features.coverage, text_C)
