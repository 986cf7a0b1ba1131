"""A scene and its views through the four frozen encoders.

Shape suffixes: V views, P points, O detections.
"""

import ctypes
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from r1pipe.files import remove_drafts
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.encoders.depth import DepthEncoder
from r1pipe.models.encoders.detector import Proposal
from r1pipe.models.encoders.image import ImageEncoder
from r1pipe.models.encoders.points import PointEncoder
from r1pipe.models.encoders.proposals import Masks
from r1pipe.models.encoders.regions import pool_regions
from r1pipe.models.features import SceneFeatures
from r1pipe.params.encoders import Encode
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene
from r1pipe.views.scores import embed_visible, greedy_coverage
from r1pipe.views.views import Views

TRIM_EVERY = 16
"""Scenes between two returns of freed memory to the system."""


@dataclass(frozen=True)
class Encoders:
    """The frozen encoders, where they came from and how they are used."""

    clip: Clip
    image: ImageEncoder
    depth: DepthEncoder
    points: PointEncoder
    folder: Path
    params: Encode

    @classmethod
    def load(cls, folder: Path, params: Encode) -> Self:
        """The encoders that stage `backbones` wrote: `clip`, `image`, `depth` and `points`.

        Raises:
            MissingError: if one of them is not there.
            ModelError: if weights and configuration do not belong together.
        """
        clip, image = Clip.load(folder / "clip"), ImageEncoder.load(folder / "image")
        depth, points = DepthEncoder.load(folder / "depth"), PointEncoder.load(folder / "points")
        for encoder in (clip, image, depth):
            encoder.batch_size = params.batch_size
        return cls(clip, image, depth, points, folder, params)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path, Encode]]:
        """What another process gets: where to load them from, not gigabytes of weights."""
        return Encoders.load, (self.folder, self.params)

    def encode(self, scene: Scene, views: Views, proposals: Sequence[Proposal] | None = None) -> SceneFeatures:
        """Everything that the model will know of a scene; annotations are not looked at.

        Args:
            scene: points and colours.
            views: its candidate views.
            proposals: what may be an object, where that was found elsewhere; the detector's own grouping otherwise.

        Raises:
            ModelError: if the scene is too wide for its voxels.
        """
        cloud = self.points.encode(scene, proposals)
        found = cloud.detections
        best_O = np.argsort(-found.scores, kind="stable")
        point_xyz, point_features = pool_regions(cloud.xyz, cloud.features, self.params.num_points)
        with _half_precision():
            view_features = self.image.encode(views.rgb)
            depth_features = self.depth.encode(views.rgb)
            clip_images = self.clip.encode_images(views.rgb)
            patches_VhwC = self.clip.encode_patches(views.rgb)
        return SceneFeatures(
            scene_id=scene.id,
            object_features=found.features[best_O].astype(np.float32),
            object_boxes=found.boxes[best_O].astype(np.float32),
            object_scores=found.scores[best_O].astype(np.float32),
            object_labels=tuple(found.labels[i] for i in best_O),
            point_features=point_features,
            point_xyz=point_xyz,
            view_features=view_features,
            depth_features=depth_features,
            cameras=views.cameras.poses.astype(np.float32),
            clip_images=clip_images,
            clip_points=embed_visible(patches_VhwC, views.index, len(scene.xyz)),
            coverage=greedy_coverage(views.index, len(scene.xyz)),
        )


def _half_precision() -> AbstractContextManager[Any]:
    """Half precision for the image towers on a GPU; results come back in single precision."""
    return torch.autocast("cuda", torch.bfloat16) if torch.cuda.is_available() else nullcontext()


@dataclass(frozen=True)
class Job:
    """Scenes and views in, features out: three folders and what lies between them."""

    encoders: Encoders
    masks: Masks | None
    """Proposals made elsewhere; None for the detector's own."""

    scenes: Path
    views: Path
    features: Path

    def encode(self, scene_id: str) -> None:
        """Encode one scene, and write its features."""
        scene, views = Scene.load(self.scenes, scene_id), Views.load(self.views, scene_id)
        proposals = None if self.masks is None else self.masks.read(scene)
        self.encoders.encode(scene, views, proposals).save(self.features)
        if next(_encoded) % TRIM_EVERY == 0:
            _trim()

    def run(self, scene_ids: Sequence[str], *, processes: int, cluster: str | None = None) -> None:
        """Encode every scene whose features are not there yet; the files do not depend on who encodes them.

        Args:
            scene_ids: the scenes.
            processes: workers of one thread each, where there is no GPU; with one, the GPU does the work.
            cluster: address of a Ray cluster that does the work instead.

        Raises:
            MissingError: if there is no such cluster, or Ray is not installed.
        """
        left = [scene_id for scene_id in scene_ids if not (self.features / f"{scene_id}.safetensors").is_file()]
        with self._mapped(left, processes, cluster) as done:
            for _ in track(done, "encode", total=len(left)):
                pass
        remove_drafts(self.features)

    @contextmanager
    def _mapped(self, scene_ids: Sequence[str], processes: int, cluster: str | None) -> Iterator[Iterator[None]]:
        """`encode` of every scene, as an iterator that is as long as the scenes."""
        if cluster is not None:
            from r1pipe.models.encoders.cluster import spread

            with spread(self.encode, scene_ids, cluster) as done:
                yield done
            return
        if processes == 1 or torch.cuda.is_available():
            yield map(self.encode, scene_ids)
            return
        # Forked: weights and imports are shared, not loaded again; safe, because a child runs torch on one thread.
        # An executor lets its workers end by themselves; `Pool` ends them by a signal, which one that runs a destructor misses.
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_adopt, initargs=(self,)) as pool:
            yield pool.map(_encode, scene_ids)


_encoded = itertools.count(1)
"""Scenes of this process."""


def _trim() -> None:
    """Return what earlier scenes have freed; glibc keeps it, in pieces that fit no scene of another size."""
    ctypes.CDLL(None).malloc_trim(0)


_jobs: list[Job] = []


def _adopt(job: Job) -> None:
    """Begin a worker."""
    torch.set_num_threads(1)
    _jobs[:] = [job]


def _encode(scene_id: str) -> None:
    _jobs[0].encode(scene_id)
