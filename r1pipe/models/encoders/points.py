"""The point encoder: a scene in, features of its voxels and the objects found in it out.

Shape suffixes: P points, M voxels, K classes, D width, O detections.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r1pipe.datasets.nyu40 import NYU40
from r1pipe.errors import MissingError, ModelError
from r1pipe.files import explain, whole
from r1pipe.models.encoders.cloud import IN_CHANNELS, Grid, Members, gather, voxelise
from r1pipe.models.encoders.detector import Detections, Proposal, best_first, propose
from r1pipe.models.encoders.heads import Described, Groups, ObjectHead, Votes, VoxelHead
from r1pipe.models.ptv3 import PointTransformerV3
from r1pipe.models.ptv3.serialization import CURVES
from r1pipe.models.ptv3.weights import authors_state
from r1pipe.params.encoders import Detector, PointsBackbone
from r1pipe.scenes.scene import Scene, SceneObject

Float32 = NDArray[np.float32]
LOG_SIZE = (-4.0, 2.0)
"""Logarithms of the sizes that a vote may name, metres."""


@dataclass(frozen=True)
class PointFeatures:
    """What the encoder makes of a scene."""

    xyz: Float32
    """`(N, 3)`, metres: the mean of each voxel's points."""

    features: Float32
    """`(N, D)`, one row a voxel."""

    detections: Detections


class Settings(BaseModel):
    """`config.json` of a point encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: PointsBackbone
    detector: Detector
    classes: tuple[str, ...]
    """Class 0 is what belongs to no object."""

    structure: tuple[str, ...]
    """Classes that a room is made of: predicted for each voxel, never detected."""

    @property
    def is_thing(self) -> NDArray[np.bool_]:
        """`(K,)`, which classes may be detected."""
        return np.array([i > 0 and name not in self.structure for i, name in enumerate(self.classes)])


def class_name(thing: SceneObject, params: Detector) -> str:
    """The class of an object under the detector's rule; empty where it has none."""
    if params.classes == "label":
        return thing.label
    return NYU40[thing.nyu40 - 1] if thing.nyu40 else ""


class PointNetwork(nn.Module):
    """Point Transformer v3 and the detector's heads."""

    def __init__(self, params: PointsBackbone, num_classes: int) -> None:
        super().__init__()
        stages = len(params.enc_depths)
        self.backbone = PointTransformerV3(
            in_channels=IN_CHANNELS,
            order=tuple(CURVES),
            stride=params.stride,
            enc_depths=params.enc_depths,
            enc_channels=params.enc_channels,
            enc_num_head=params.enc_num_head,
            enc_patch_size=(params.patch_size,) * stages,
            dec_depths=params.dec_depths,
            dec_channels=params.dec_channels,
            dec_num_head=params.dec_num_head,
            dec_patch_size=(params.patch_size,) * (stages - 1),
            drop_path=params.drop_path,
            # The published weights were trained with what v1.5.1 computes.
            semantics="v1.5.1" if params.source == "load" else "current",
        )
        self.voxel_head = VoxelHead(params.dec_channels[0], num_classes)
        self.object_head = ObjectHead(params.dec_channels[0], num_classes)

    def forward(self, grids: Sequence[Grid]) -> tuple[Tensor, Votes]:
        """Features `(M, D)` and votes of the voxels of several clouds, one after the other."""
        cloud = {
            "coord": self._tensor([grid.xyz for grid in grids]),
            "grid_coord": self._tensor([grid.cell for grid in grids]),
            "feat": self._tensor([grid.features for grid in grids]),
            "offset": self._tensor([np.cumsum([len(grid.cell) for grid in grids])]),
        }
        features_MD, votes = self.voxel_head(self.backbone(cloud).feat)
        return features_MD, votes

    def describe(self, features_MD: Tensor, groups: Sequence[Members], sizes: Sequence[int]) -> Described:
        """Class, colour and features of the groups of several clouds, whose voxels number `sizes`, one after the other."""
        starts = np.cumsum([0, *sizes])
        described: Described = self.object_head(
            features_MD,
            Groups(
                self._tensor([start + one.voxels for start, one in zip(starts, groups, strict=False)]),
                self._tensor([one.members for one in groups]),
                self._tensor([one.counts for one in groups]),
                self._tensor([one.shapes for one in groups]),
            ),
        )
        return described

    def load_backbone(self, path: Path) -> None:
        """Start from published weights of Point Transformer v3, whose keys may begin with `module.` and `backbone.`.

        Raises:
            MissingError: if there is no such file.
            ModelError: if names or shapes are not those of the backbone; a task's head is left out.
        """
        if not path.is_file():
            raise MissingError(f"Expected the weights of Point Transformer v3 at {path}, found no such file.")
        _fill(self.backbone, authors_state(_read(path)), f"Point Transformer v3 in {path}")

    def _tensor(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(next(self.parameters()).device)


def voted_boxes(box_M6: Tensor, grid: Grid) -> Float32:
    """Votes of one cloud as boxes `(M, 6)`, centre and size, metres."""
    votes_M6 = box_M6.detach().cpu().numpy()
    return np.concatenate([grid.xyz + votes_M6[:, :3], np.exp(votes_M6[:, 3:].clip(*LOG_SIZE))], axis=1)


def thing_probability(classes_MK: Tensor, is_thing_K: NDArray[np.bool_]) -> Float32:
    """The probability `(M,)` that a voxel belongs to a thing, of whatever class."""
    probability_MK = classes_MK.detach().softmax(dim=1).cpu().numpy()
    probability_M: Float32 = probability_MK[:, is_thing_K].sum(axis=1)
    return probability_M


class PointEncoder:
    """A trained network with what it needs to encode a scene."""

    def __init__(self, settings: Settings, network: PointNetwork) -> None:
        self.settings = settings
        self.network = network.eval()

    @property
    def hidden_size(self) -> int:
        """Width D of the features."""
        return self.settings.points.dec_channels[0]

    @property
    def things(self) -> tuple[str, ...]:
        """The classes that may be detected."""
        return tuple(
            name for name, is_thing in zip(self.settings.classes, self.settings.is_thing, strict=True) if is_thing
        )

    def class_of(self, thing: SceneObject) -> str:
        """The class of an annotated object under the detector's rule; empty where it has none."""
        return class_name(thing, self.settings.detector)

    def encode(self, scene: Scene, proposals: Sequence[Proposal] | None = None) -> PointFeatures:
        """Features of the scene's voxels, and its objects; annotations are not looked at.

        Args:
            scene: points and colours.
            proposals: what may be an object, where that was found elsewhere; the detector's own grouping otherwise.

        Raises:
            ModelError: if the scene is too wide for its voxels.
        """
        grid = voxelise(scene.xyz, scene.rgb, self.settings.points.voxel_size)
        with torch.inference_mode():
            features_MD, votes = self.network([grid])
            voted_M6 = voted_boxes(votes.box, grid)
            if proposals is None:
                proposals = self._propose(scene, grid, votes, voted_M6)
            found = self._detect(scene, grid, features_MD, voted_M6, proposals)
        return PointFeatures(grid.xyz, features_MD.cpu().numpy(), found)

    def _propose(self, scene: Scene, grid: Grid, votes: Votes, voted_M6: Float32) -> list[Proposal]:
        """The detector's own grouping."""
        thing_P = thing_probability(votes.classes, self.settings.is_thing)[grid.of_point]
        return propose(scene.xyz, scene.rgb, thing_P, voted_M6[grid.of_point], self.settings.detector)

    def _detect(
        self, scene: Scene, grid: Grid, features_MD: Tensor, voted_M6: Float32, proposals: Sequence[Proposal]
    ) -> Detections:
        """The proposals that are objects, best first."""
        settings = self.settings
        if not proposals:
            empty = np.zeros((0, self.hidden_size + 6), np.float32)
            return Detections(empty[:, 6:], empty[:, :6], empty[:, 0], ())
        groups = gather(scene.xyz, scene.rgb, grid, voted_M6, proposals)
        described = self.network.describe(features_MD, [groups], [len(grid.cell)])
        probability_OK = described.classes.softmax(dim=1).cpu().numpy() * settings.is_thing
        box_O6, score_O = np.stack([one.box for one in proposals]), probability_OK.max(axis=1)
        kept = best_first(box_O6, score_O, settings.detector)
        labels = tuple(settings.classes[i] for i in probability_OK[kept].argmax(axis=1))
        return Detections(described.features.cpu().numpy()[kept], box_O6[kept], score_O[kept], labels)

    def save(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        with whole(folder) as draft:
            draft.mkdir(parents=True)
            (draft / "config.json").write_text(json.dumps(self.settings.model_dump(mode="json"), indent=2) + "\n")
            state = {name: values.cpu().contiguous() for name, values in self.network.state_dict().items()}
            save_file(state, draft / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingError: if a file is missing.
            ModelError: if weights and configuration do not belong together.
        """
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise MissingError(f"Expected a point encoder's {name} in {folder}, found no such file.")
        settings = _settings(folder / "config.json")
        network = PointNetwork(settings.points, len(settings.classes))
        path = folder / "model.safetensors"
        _fill(network, _read(path), f"the point encoder in {path}")
        return cls(settings, network.to("cuda" if torch.cuda.is_available() else "cpu"))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"Expected weights in {path}, found a file that safetensors cannot read: {error}.") from None


def _fill(module: nn.Module, state: dict[str, Tensor], what: str) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:400]
        raise ModelError(f"Expected the weights of {what}, found others: {reason}.") from None


def _settings(path: Path) -> Settings:
    try:
        return Settings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"Expected a point encoder's settings in {path}: {explain(error)}.") from None
