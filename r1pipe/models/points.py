"""The point encoder: a scene in, features of its voxels and the objects found in it out.

Shape suffixes: P points, M voxels, K classes, D width, O detections.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

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
from r1pipe.models.detector import Detections, Heads, Votes, Voxels, detect
from r1pipe.models.ptv3 import PointTransformerV3
from r1pipe.models.ptv3.serialization import CURVES
from r1pipe.params import Detector, PointsBackbone
from r1pipe.scenes.scene import Scene, SceneObject

Float32 = NDArray[np.float32]
IN_CHANNELS = 9
_FLOOR_PERCENTILE = 1.0


@dataclass(frozen=True)
class PointFeatures:
    """What the encoder makes of a scene."""

    xyz: Float32
    """`(N, 3)`, metres: the mean of each voxel's points."""

    features: Float32
    """`(N, D)`, one row a voxel."""

    detections: Detections


class Grid(NamedTuple):
    """A cloud on a grid, one row a voxel that holds points."""

    cell: NDArray[np.int64]
    """`(M, 3)`, from 0 on."""

    xyz: Float32
    """`(M, 3)`, mean of the points."""

    features: Float32
    """`(M, 9)`: mean colour (-1..1), metres from the middle of the cloud, height above its floor in metres, where in its
    cell the mean lies (-1..1). Attention cannot tell where a voxel is but from these."""

    of_point: NDArray[np.intp]
    """`(P,)`, the voxel of each point."""

    first: NDArray[np.intp]
    """`(M,)`, the first point of each voxel."""


def voxelise(xyz_P3: Float32, rgb_P3: NDArray[np.uint8] | Float32, size: float) -> Grid:
    """Average a cloud's points in cubes of `size` metres.

    The floor is the first percentile of height: a few stray points below it do not move it.

    Raises:
        ModelError: if the cloud is empty.
    """
    if len(xyz_P3) == 0:
        raise ModelError("Expected points to voxelise, found none.")
    low_3 = np.floor(xyz_P3.min(axis=0) / size)
    cell_P3 = (np.floor(xyz_P3 / size) - low_3).astype(np.int64)
    key_P = np.ravel_multi_index(tuple(cell_P3.T), tuple(cell_P3.max(axis=0) + 1))
    _, first_M, of_point_P = np.unique(key_P, return_index=True, return_inverse=True)
    count_M1 = np.bincount(of_point_P)[:, None]
    values = np.concatenate([xyz_P3, rgb_P3], axis=1, dtype=np.float64)
    mean_M6 = np.stack([np.bincount(of_point_P, column) for column in values.T], axis=1) / count_M1
    xyz_M3, cell_M3 = mean_M6[:, :3], cell_P3[first_M]
    floor = np.percentile(xyz_P3[:, 2], _FLOOR_PERCENTILE)
    middle_3 = [*((xyz_P3.min(axis=0) + xyz_P3.max(axis=0)) / 2)[:2], floor]
    within_M3 = 2 * (xyz_M3 / size - low_3 - cell_M3) - 1
    features_M9 = np.concatenate([mean_M6[:, 3:] / 127.5 - 1, xyz_M3 - middle_3, within_M3], axis=1)
    return Grid(cell_M3, xyz_M3.astype(np.float32), features_M9.astype(np.float32), of_point_P, first_M)


class Settings(BaseModel):
    """`config.json` of a point encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: PointsBackbone
    detector: Detector
    classes: tuple[str, ...]
    """Class 0 is what belongs to no object."""

    structure: tuple[str, ...]
    """Classes that a room is made of: predicted for each voxel, never detected."""


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
        )
        self.heads = Heads(params.dec_channels[0], num_classes)

    def forward(self, grids: Sequence[Grid]) -> tuple[Tensor, Votes]:
        """Features `(M, D)` and votes of the voxels of several clouds, one after the other."""
        device = next(self.parameters()).device
        cloud = {
            "coord": torch.from_numpy(np.concatenate([grid.xyz for grid in grids])),
            "grid_coord": torch.from_numpy(np.concatenate([grid.cell for grid in grids])),
            "feat": torch.from_numpy(np.concatenate([grid.features for grid in grids])),
            "offset": torch.tensor([len(grid.cell) for grid in grids]).cumsum(0),
        }
        encoded = self.backbone({name: values.to(device) for name, values in cloud.items()})
        features, votes = self.heads(encoded.feat)
        return features, votes


class PointEncoder:
    """A trained network with what it needs to encode a scene."""

    def __init__(self, settings: Settings, network: PointNetwork) -> None:
        self.settings = settings
        self.network = network.eval()
        self._is_thing_K = np.array([i > 0 and c not in settings.structure for i, c in enumerate(settings.classes)])

    @property
    def hidden_size(self) -> int:
        """Width D of the features."""
        return self.settings.points.dec_channels[0]

    @property
    def things(self) -> tuple[str, ...]:
        """The classes that may be detected."""
        return tuple(name for name, is_thing in zip(self.settings.classes, self._is_thing_K, strict=True) if is_thing)

    def class_of(self, thing: SceneObject) -> str:
        """The class of an annotated object under the detector's rule; empty where it has none."""
        return class_name(thing, self.settings.detector)

    def encode(self, scene: Scene) -> PointFeatures:
        """Features of the scene's voxels, and its objects; annotations are not looked at.

        Raises:
            ModelError: if the scene has no points.
        """
        grid = voxelise(scene.xyz, scene.rgb, self.settings.points.voxel_size)
        with torch.inference_mode():
            features_MD, votes = self.network([grid])
            probabilities_MK, box_M6 = votes.classes.softmax(dim=1), votes.box.clone()
        box_M6 = box_M6.cpu().numpy()
        centre_M3, size_M3 = grid.xyz + box_M6[:, :3], np.exp(box_M6[:, 3:].clip(-4, 2))
        features = features_MD.cpu().numpy()
        voxels = Voxels(
            grid.xyz,
            grid.of_point,
            features,
            probabilities_MK.cpu().numpy(),
            np.concatenate([centre_M3, size_M3], axis=1),
        )
        found = detect(voxels, scene.xyz, self.settings.classes, self._is_thing_K, self.settings.detector)
        return PointFeatures(grid.xyz, features, found)

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
        try:
            network.load_state_dict(load_file(folder / "model.safetensors"))
        except (RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"Expected the weights of the point encoder in {folder}, found: {reason}.") from None
        return cls(settings, network.to("cuda" if torch.cuda.is_available() else "cpu"))


def _settings(path: Path) -> Settings:
    try:
        return Settings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ModelError(f"Expected a point encoder's settings in {path}: {explain(error)}.") from None
