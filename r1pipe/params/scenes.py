"""The sections of scenes: made or read (`collect`), cut to samples (`prepare`), seen (`render`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, Positive, Section


class Rooms(Section):
    """How many procedural rooms a split has."""

    train: Annotated[int, Field(ge=0)]
    val: Annotated[int, Field(ge=0)]
    test: Annotated[int, Field(ge=0)]


class Collect(Section):
    """Stage `collect`."""

    rooms: Rooms
    points_per_m2: Positive
    """Density of the scanned surface before occlusion."""

    frames_per_room: Annotated[int, Field(ge=0)]
    """RGB-D frames kept along the scanner's path."""

    frame_size: tuple[Count, Count]
    """Width and height, pixels."""


class Prepare(Section):
    """Stage `prepare`."""

    voxel_size: Positive
    """Edge of the grid, metres, on which a cloud is thinned to one point a cell; boxes come from all points."""


class Render(Section):
    """Stage `render`."""

    source: Literal["rendered", "frames", "both"]
    """What candidate views show: `rendered` points from every camera; `frames`, the scan's own photographs alone; or `both`,
    photographs where a frame was taken and rendered points elsewhere. A scan without frames is rendered."""

    size: tuple[Count, Count]
    """Width and height of a view, pixels."""

    fov: Annotated[float, Field(gt=0, lt=180)]
    """Horizontal field of view, degrees."""

    num_ring: Count
    """Candidate cameras on the ring at eye height."""

    eye_height: Positive
    """Metres above the floor."""

    max_frames: Annotated[int, Field(ge=0)]
    """Real RGB-D frames that join the candidates, at most; the count of candidates is the same for every scene."""

    point_radius: Annotated[int, Field(ge=0)]
    """Half-width of a splat, pixels."""

    fill_holes: bool
    """Whether gaps between the splats of a surface show that surface instead of what is behind it."""

    @model_validator(mode="after")
    def _frames_are_candidates(self) -> Self:
        if self.source == "frames" and self.max_frames == 0:
            raise ValueError("render.source frames needs max_frames of at least 1, found 0")
        return self
