"""Point Transformer v3 computes what the slow reference computes, stage by stage."""

from collections.abc import Callable

import pytest
import torch
from slow_ptv3 import Reference
from tiny_clouds import ORDERS, cloud, grid
from torch import Tensor

from r1pipe.models.ptv3 import PointTransformerV3


def randomised(network: PointTransformerV3) -> PointTransformerV3:
    """Every norm with statistics and weights of its own, so that none can be left out or exchanged unseen."""
    generator = torch.Generator().manual_seed(1)
    for name, values in network.state_dict().items():
        if name.endswith(("running_mean", "rpe_table")) or (values.ndim == 1 and name.endswith("bias")):
            values.normal_(0, 0.3, generator=generator)
        elif name.endswith("running_var") or (values.ndim == 1 and name.endswith("weight")):
            values.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def largest_difference(arguments: dict, points: dict, condition: int = 0) -> float:
    """Between the model and the reference, over all stages; both must have the same stages and shapes."""
    torch.manual_seed(0)
    network = randomised(PointTransformerV3(**arguments))
    found: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[..., None]:
        return lambda module, inputs, output: found.update({stage: output})

    parts = {"embedding": network.embedding, **network.enc, **network.dec}
    for name, module in parts.items():
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        network(points)
        context_D = points["context"][0] if "context" in points else None
        expected = Reference(network.state_dict(), arguments, condition, context_D).features(points)
    assert found.keys() == expected.keys() == parts.keys()
    assert all(found[name].std() > 0.1 for name in found)
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


SMALL = {
    "order": ORDERS,
    "in_channels": 4,
    "stride": (2, 2),
    "enc_depths": (4, 5, 2),
    "enc_channels": (16, 24, 32),
    "enc_num_head": (2, 3, 4),
    "enc_patch_size": (32, 32, 32),
    "dec_depths": (2, 5),
    "dec_channels": (16, 24),
    "dec_num_head": (4, 2),
    "dec_patch_size": (32, 32),
}
CONDITIONED = {"pdnorm_bn": True, "pdnorm_ln": True}


def two_clouds() -> dict[str, Tensor]:
    """A large cloud and one that is smaller than a patch on the coarser levels."""
    return cloud(grid(400, side=16), grid(60, side=6, seed=1))


@pytest.mark.parametrize("enable_flash", [True, False])
@pytest.mark.parametrize("semantics", ["v1.5.1", "current"])
def test_every_stage_computes_what_the_authors_compute(semantics, enable_flash):
    assert largest_difference(SMALL | {"semantics": semantics, "enable_flash": enable_flash}, two_clouds()) < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"enable_rpe": True, "enable_flash": False}, id="relative positions"),
        pytest.param({"pre_norm": False, "semantics": "v1.5.1"}, id="norms after the sums"),
        pytest.param({"extended_depth": True}, id="one more bit for a grid of 16"),
        pytest.param({"stride": (4, 2), "enc_patch_size": (16, 32, 8)}, id="other strides and patches"),
        pytest.param({"order": ("hilbert-trans", "z"), "qkv_bias": False}, id="two orders, no bias"),
    ],
)
def test_the_other_arguments_compute_what_the_authors_compute(changes):
    assert largest_difference(SMALL | changes, two_clouds()) < 1e-4


@pytest.mark.parametrize("stride", [(2, 2), (4, 4), (2, 4)])
def test_pooling_stops_where_a_grid_has_no_bits_left(stride):
    assert largest_difference(SMALL | {"stride": stride}, cloud(grid(60, side=4), grid(9, side=4, seed=1))) < 1e-4


@pytest.mark.parametrize(
    ("changes", "condition", "index"),
    [
        pytest.param({}, "ScanNet", 0, id="the first"),
        pytest.param({"semantics": "v1.5.1"}, ["Structured3D"], 2, id="the third, in a list"),
        pytest.param({"semantics": "v1.5.1", "pre_norm": False}, "S3DIS", 1, id="after the sums"),
        pytest.param({"pdnorm_adaptive": True}, "S3DIS", 1, id="adaptive"),
    ],
)
def test_conditioned_norms_compute_what_the_authors_compute(changes, condition, index):
    context_1D = torch.randn(1, 256, generator=torch.Generator().manual_seed(3))
    points = two_clouds() | {"condition": condition, "context": context_1D}
    assert largest_difference(SMALL | CONDITIONED | changes, points, index) < 1e-4


def test_the_authors_scannet_configuration_agrees_on_a_room():
    """Default widths and depths, patches of 1024, a floor and two walls of 2 cm voxels."""
    side = torch.arange(32)
    floor, wall = torch.cartesian_prod(side, side, side[:1]), torch.cartesian_prod(side, side[:1], side[1:])
    room = torch.cat([floor, wall, wall[wall[:, 0] > 0][:, [1, 0, 2]]])
    defaults = {
        "order": ORDERS,
        "stride": (2, 2, 2, 2),
        "enc_depths": (2, 2, 2, 6, 2),
        "enc_num_head": (2, 4, 8, 16, 32),
        "enc_patch_size": (1024,) * 5,
        "dec_depths": (2, 2, 2, 2),
        "dec_num_head": (4, 4, 8, 16),
        "dec_patch_size": (1024,) * 4,
    }
    assert largest_difference(defaults, cloud(room, channels=6)) < 1e-4
