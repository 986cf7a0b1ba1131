"""What a batch of clouds must hold before a network reads it: finite places, whole voxels, one cloud after the other.

Shape suffixes: N rows, B clouds.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1pipe.errors import DataError

TOO_FAR = float(1 << 31)
"""Beyond what a curve can address: larger quotients stop here, so that they are refused and do not wrap around."""


class Domain(NamedTuple):
    """The data set that a batch comes from, for norms that differ by it (Point Prompt Training, CVPR 2024)."""

    condition: str

    context: Tensor | None
    """`(1, 256)` or `(B, 256)`, what adaptive norms are modulated by."""


class Inputs(NamedTuple):
    """Where the rows of a batch are."""

    coord: Tensor
    """`(N, 3)`, metres."""

    grid: Tensor
    """`(N, 3)`, int64."""

    batch: Tensor
    """`(N,)`, int64, the cloud of each row."""

    domain: Domain | None


def read(cloud: Mapping[str, Any]) -> Inputs:
    """The places of a batch; `PointTransformerV3.forward` describes the mapping.

    Raises:
        DataError: if a key is missing, or its values are not what a network can read.
    """
    if "coord" not in cloud or not cloud.keys() & {"grid_coord", "grid_size"} or not cloud.keys() & {"offset", "batch"}:
        raise DataError(
            f"Expected coord, grid_coord or grid_size, and offset or batch in a cloud, found {', '.join(sorted(cloud))}."
        )
    coord_N3 = _coord(cloud["coord"])
    return Inputs(coord_N3, _grid(cloud, coord_N3), _batch(_offset(cloud), len(coord_N3)), _domain(cloud))


def features(cloud: Mapping[str, Any], *, channels: int, dtype: torch.dtype) -> Tensor:
    """The rows' features `(N, channels)` in the type of the weights.

    Raises:
        DataError: if they are missing or have another shape.
    """
    expected = (len(cloud["coord"]), channels)
    found = tuple(cloud["feat"].shape) if "feat" in cloud else None
    if found != expected:
        raise DataError(f"Expected feat of shape {expected}, found {found}.")
    return cloud["feat"].to(dtype)  # type: ignore[no-any-return]


def _coord(coord_N3: Tensor) -> Tensor:
    if coord_N3.ndim != 2 or coord_N3.shape[1] != 3 or not len(coord_N3):
        raise DataError(f"Expected coord of shape (N, 3) with at least one row, found {tuple(coord_N3.shape)}.")
    num_bad = int((~coord_N3.isfinite()).any(dim=1).sum())
    if num_bad:
        raise DataError(f"Expected finite coordinates, found NaN or infinity in {num_bad} of {len(coord_N3)} rows.")
    return coord_N3 if coord_N3.is_floating_point() else coord_N3.float()


def _offset(cloud: Mapping[str, Any]) -> Tensor:
    """Cumulative ends of the clouds `(B,)`, given or counted."""
    if "offset" in cloud:
        return cloud["offset"].long()  # type: ignore[no-any-return]
    batch_N = cloud["batch"].long()
    if len(batch_N) and (int(batch_N.min()) < 0 or bool((batch_N.diff() < 0).any())):
        raise DataError(
            "Expected the rows of one cloud together and clouds from 0 on, found a batch that falls or is negative."
        )
    return torch.bincount(batch_N).cumsum(0)


def _batch(offset_B: Tensor, num_rows: int) -> Tensor:
    counts_B = offset_B.diff(prepend=offset_B.new_zeros(1))
    if not len(offset_B) or int(counts_B.min()) < 1 or int(offset_B[-1]) != num_rows:
        raise DataError(
            f"Expected clouds with at least one row, whose offsets rise to the {num_rows} rows of the batch, "
            f"found {offset_B.tolist()}."
        )
    return torch.repeat_interleave(torch.arange(len(offset_B), device=offset_B.device), counts_B)


def _grid(cloud: Mapping[str, Any], coord_N3: Tensor) -> Tensor:
    """Voxels `(N, 3)`, given or cut as the authors do: from the batch's lowest corner, towards zero."""
    if "grid_coord" not in cloud:
        size = float(cloud["grid_size"])
        if not size > 0:
            raise DataError(f"Expected a positive grid_size, found {size}.")
        cell_N3 = torch.div(coord_N3 - coord_N3.min(dim=0).values, size, rounding_mode="trunc")
        return cell_N3.clamp(max=TOO_FAR).long()
    grid_N3: Tensor = cloud["grid_coord"]
    if grid_N3.is_floating_point() or grid_N3.shape != coord_N3.shape:
        raise DataError(
            f"Expected integers of shape {tuple(coord_N3.shape)} in grid_coord, "
            f"found {grid_N3.dtype} of shape {tuple(grid_N3.shape)}."
        )
    return grid_N3.long()


def _domain(cloud: Mapping[str, Any]) -> Domain | None:
    condition = cloud.get("condition") or ()
    names = [condition] if isinstance(condition, str) else list(condition)
    return Domain(names[0], cloud.get("context")) if names else None
