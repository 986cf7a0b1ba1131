"""The sections of frozen encoders: which they are and how they are trained (`backbones`), what they see (`encode`)."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, Positive, Section, Share


class Backbone(Section):
    """A frozen encoder: trained here on rendered views, or loaded by name."""

    source: Literal["train", "load"]
    model: str | None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.source == "load" and self.model is None:
            raise ValueError("source load needs a model by name or path")
        return self


class ClipBackbone(Backbone):
    """CLIP, through open_clip."""

    model: str | None
    """open_clip's model name, or `local-dir:` and a folder, where `source` is `load`."""

    pretrained: str | None
    """open_clip's tag or a local file where `source` is `load`."""

    embed_dim: Count
    image_width: Count
    image_layers: Count
    text_width: Count
    text_layers: Count
    patch_size: Count
    context_length: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class Tower(Backbone):
    """What sees a view, through transformers."""

    model: str | None
    """Hub id or local path where `source` is `load`."""

    revision: str | None
    hidden_size: Count
    layers: Count
    patch_size: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class ImageBackbone(Tower):
    """SigLIP-2's vision tower."""


class DepthBackbone(Tower):
    """Depth-Anything v2."""


class PointsBackbone(Section):
    """Point Transformer v3, with the detector's heads on top."""

    source: Literal["train", "load"]
    weights: str | None
    """A folder that `PointEncoder.save` wrote, where `source` is `load`."""

    voxel_size: Positive
    enc_depths: tuple[Annotated[int, Field(ge=0)], ...]
    enc_channels: tuple[Count, ...]
    enc_num_head: tuple[Count, ...]
    dec_depths: tuple[Annotated[int, Field(ge=0)], ...]
    dec_channels: tuple[Count, ...]
    dec_num_head: tuple[Count, ...]
    patch_size: Count
    stride: tuple[Count, ...]
    steps: Count
    batch_size: Count
    """Scenes a step."""

    drop_path: Share
    """Share of rows whose branch is dropped in the deepest block."""

    learning_rate: Positive


class Detector(Section):
    """From voxels that vote to boxes."""

    classes: Literal["label", "nyu40"]
    """What a class is: a raw label, or a NYU40 class."""

    min_class_scenes: Count
    """A class has to occur in so many train scenes; rarer ones are no class."""

    link_distance: Positive
    """Points of like colour nearer than this, metres, are of one patch."""

    link_colour: Positive
    """What like colour is: Euclidean distance in 0..255."""

    group_iou: Share
    """A patch joins another whose voted box its own vote overlaps at least so much."""

    min_points: Count
    """Points of a patch, at least."""

    score_threshold: Share
    nms_iou: Share


class Backbones(Section):
    """Stage `backbones`."""

    clip: ClipBackbone
    image: ImageBackbone
    depth: DepthBackbone
    points: PointsBackbone
    detector: Detector


class Encode(Section):
    """Stage `encode`."""

    num_points: Count
    """Tokens that a cloud's features are pooled to."""

    batch_size: Count
    """Views a forward pass."""

    proposals: Path | None
    """A directory of masks made elsewhere, `<scene_id>.npz` as Mask3D exports them, in place of the detector's own
    grouping; null for the latter. DVC knows it by its name: name another when the files change."""
