"""Small clouds of voxels, and a small Point Transformer v3 to read them."""

import torch

from r1pipe.models.ptv3 import PointTransformerV3

ORDERS = ("z", "z-trans", "hilbert", "hilbert-trans")


def grid(count: int, *, side: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unique_N3 = torch.unique(torch.randint(0, side, (count, 3), generator=generator), dim=0)
    return unique_N3[torch.randperm(len(unique_N3), generator=generator)]


def cloud(*grids: torch.Tensor, channels: int = 4) -> dict[str, torch.Tensor]:
    grid_N3 = torch.cat(grids)
    feat_NC = torch.sin(grid_N3.float() @ torch.arange(1.0, 3 * channels + 1).reshape(3, channels))
    offset_B = torch.tensor([len(g) for g in grids]).cumsum(0)
    return {"coord": grid_N3 * 0.1, "grid_coord": grid_N3, "feat": feat_NC, "offset": offset_B}


def model(**changes: object) -> PointTransformerV3:
    torch.manual_seed(0)
    arguments: dict[str, object] = {
        "in_channels": 4,
        "order": ORDERS,
        "stride": (2, 2),
        "enc_depths": (2, 2, 2),
        "enc_channels": (16, 24, 32),
        "enc_num_head": (2, 3, 4),
        "enc_patch_size": (32, 32, 32),
        "dec_depths": (1, 2),
        "dec_channels": (16, 24),
        "dec_num_head": (2, 3),
        "dec_patch_size": (32, 16),
    }
    return PointTransformerV3(**(arguments | changes)).eval()
