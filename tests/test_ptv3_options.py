"""Point Transformer v3: the authors' other arguments, their checkpoints, and clouds that cannot be read."""

import pytest
import torch
from tiny_clouds import cloud, grid, model

from r1pipe.errors import DataError, ModelError
from r1pipe.models.ptv3 import PointTransformerV3
from r1pipe.models.ptv3.weights import authors_state

PPT = {"pdnorm_bn": True, "pdnorm_ln": True}
RPE = {"enable_rpe": True, "enable_flash": False}
ONE = torch.zeros(1, 3, dtype=torch.long)
PAIR = torch.tensor([[0, 0, 1], [2, 0, 1]])


def features(network: PointTransformerV3, points: dict[str, object]) -> torch.Tensor:
    with torch.no_grad():
        return network(points).feat


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first, second, atol=1e-5)


def test_without_flash_a_large_cloud_alone_has_the_features_it_has_with_flash():
    points = cloud(grid(700))
    assert same(*(features(model(enable_flash=flash), points) for flash in (True, False)))


def test_without_flash_the_smallest_cloud_of_the_batch_sets_the_patches_of_all():
    network, large, small = model(enable_flash=False), grid(700), grid(20, seed=1)
    together_NC = features(network, cloud(large, small))[: len(large)]
    assert not torch.allclose(together_NC, features(network, cloud(large)), atol=1e-3)


def test_relative_positions_move_the_features_and_are_learned():
    network, points = model(**RPE).train(), cloud(grid(300), grid(60, seed=1))
    network(points).feat.square().sum().backward()
    tables = [p for name, p in network.named_parameters() if name.endswith("attn.rpe.rpe_table")]
    assert len(tables) == 9 and all(bool(table.grad.any()) for table in tables)
    assert tables[0].shape == (3 * 21, 2)  # int((4 * 32) ** (1 / 3) * 2) is 10
    assert not torch.allclose(features(network.eval(), points), features(model(enable_flash=False), points), atol=1e-4)


def test_upcast_attention_computes_half_precision_in_float32():
    points = cloud(grid(200))
    exact_NC = features(model(), points)
    half_NC, upcast_NC = (features(model(upcast_attention=up).half(), points) for up in (False, True))
    assert half_NC.dtype == upcast_NC.dtype == torch.float16
    assert torch.allclose(upcast_NC.float(), exact_NC, atol=0.05) and not torch.equal(half_NC, upcast_NC)
    assert torch.equal(exact_NC, features(model(upcast_attention=True, upcast_softmax=True), points))


def test_conditioned_norms_have_the_authors_names():
    state = PointTransformerV3(**PPT).state_dict()
    assert len(state) == 880
    assert {
        "embedding.stem.norm.norm.0.weight",
        "enc.enc0.block0.cpe.2.norm.1.bias",
        "enc.enc1.down.norm.0.norm.2.running_var",
        "dec.dec3.up.proj_skip.1.norm.0.num_batches_tracked",
        "dec.dec0.block1.norm2.0.norm.2.weight",
    } <= set(state)
    extreme = {"enc_depths": (3, 3, 3, 6, 3), "dec_depths": (3, 3, 3, 3)}
    assert len(PointTransformerV3(**PPT, **extreme).state_dict()) == 880 + 8 * 30


def test_norms_without_affine_have_no_weights():
    state = model(pdnorm_bn=True, pdnorm_affine=False).state_dict()
    assert "embedding.stem.norm.norm.0.running_mean" in state and "embedding.stem.norm.norm.0.weight" not in state
    assert "enc.enc0.block0.norm1.0.weight" in state


@pytest.mark.parametrize("condition", ["S3DIS", ["S3DIS"], ["S3DIS", "ScanNet"]])
def test_a_batch_passes_through_the_norms_of_its_condition(condition):
    network, points = model(**PPT), cloud(grid(300), grid(60, seed=1))
    before_NC = features(network, points | {"condition": condition})
    for name, parameter in network.named_parameters():
        if name.rpartition(".")[0].endswith("norm.0"):
            parameter.data.fill_(9.0)
    assert torch.equal(features(network, points | {"condition": condition}), before_NC)
    assert not same(features(network, points | {"condition": "ScanNet"}), before_NC)


def test_a_context_modulates_adaptive_norms_cloud_by_cloud():
    network, first, second = model(**PPT, pdnorm_adaptive=True), grid(500), grid(300, seed=1)
    context_B256 = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    named = [{"condition": "ScanNet", "context": context_B256[b : b + 1]} for b in (0, 1)]
    alone_NC = torch.cat([features(network, cloud(g) | name) for g, name in zip((first, second), named, strict=True)])
    together = cloud(first, second) | {"condition": "ScanNet", "context": context_B256}
    assert same(features(network, together), alone_NC)
    assert not same(features(network, together | {"context": context_B256.flip(0)}), alone_NC)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_a_checkpoint_loads_strictly_whatever_its_prefix(prefix):
    network = model(**PPT)
    head = {"module.seg_head.weight": torch.zeros(20, 16), "seg_head.bias": torch.zeros(20)}
    state = {f"{prefix}{name}": values for name, values in network.state_dict().items()}
    assert authors_state(state | head).keys() == network.state_dict().keys()
    model(**PPT).load_state_dict(authors_state(state | head), strict=True)


def test_a_task_beside_the_backbone_is_left_out():
    state = {"module.backbone.a": ONE, "module.embedding_table.weight": ONE, "module.logit_scale": ONE}
    assert authors_state(state) == {"a": ONE}


def test_voxels_may_be_cut_by_size_and_clouds_named_by_row():
    points = cloud(grid(300), grid(60, seed=1))
    other = {
        "coord": points["grid_coord"] * 0.25 - 7,
        "grid_size": 0.25,
        "feat": points["feat"],
        "batch": torch.repeat_interleave(torch.arange(2), points["offset"].diff(prepend=torch.zeros(1).long())),
    }
    network = model()
    assert torch.equal(features(network, points), features(network, other))


@pytest.mark.parametrize("options", [{}, {"enable_flash": False}, RPE], ids=str)
@pytest.mark.parametrize(
    "grids", [[ONE], [ONE, ONE], [ONE + 65535], [ONE, grid(90)]], ids=["one", "two", "far", "mixed"]
)
def test_a_single_voxel_is_a_cloud(options, grids):
    feat_NC = features(model(**options), cloud(*grids))
    assert feat_NC.shape == (sum(map(len, grids)), 16) and bool(feat_NC.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
def test_features_of_another_type_become_that_of_the_weights(dtype):
    points = cloud(grid(90)) | {"feat": torch.ones(len(grid(90)), 4)}
    assert torch.equal(features(model(), points | {"feat": points["feat"].to(dtype)}), features(model(), points))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enable_rpe": True}, "enable_flash=False with enable_rpe=True"),
        ({"pdnorm_ln": True, "pdnorm_decouple": False}, "pdnorm_decouple=True"),
        ({"pdnorm_bn": True, "pdnorm_conditions": ()}, "at least one of pdnorm_conditions"),
        ({"stride": (2,)}, "Expected 2 numbers in stride for 3 encoder stages, found 1"),
        ({"order": ("z", "peano")}, "peano"),
        ({"semantics": "v1.6"}, "Expected semantics of v1.5.1, current, found v1.6"),
        ({"enc_num_head": (3, 3, 4)}, "divisible by heads, found 16 and 3"),
    ],
)
def test_arguments_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        model(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid_coord": torch.tensor([[0, 0, 1], [0, 0, 1]])}, "found one twice"),
        ({"grid_coord": torch.tensor([[0, 0, 1], [0, -1, 1]])}, "found -1"),
        ({"grid_coord": torch.tensor([[0, 0, 1], [0, 0, 1 << 16]])}, "found 17 and 51"),
        ({"grid_coord": torch.tensor([[0, 0, 1], [0, 0, (1 << 63) - 1]])}, "found 63 and 189"),
        ({"grid_coord": torch.tensor([[0, 0, 1], [0, 0, float("nan")]])}, r"float32 of shape \(2, 3\)"),
        ({"grid_coord": torch.tensor([[0, 0, 1]])}, r"of shape \(1, 3\)"),
        ({"coord": torch.tensor([[0, 0, float("nan")], [0, 0, 1]])}, "infinity in 1 of 2 rows"),
        ({"coord": torch.tensor([[0, 0, float("inf")], [0, float("-inf"), 1]])}, "infinity in 2 of 2 rows"),
        ({"coord": torch.ones(2, 2)}, r"coord of shape \(N, 3\) with at least one row, found \(2, 2\)"),
        ({"offset": torch.tensor([3])}, "the 2 rows"),
        ({"offset": torch.tensor([1, 1, 2])}, r"at least one row.*found \[1, 1, 2\]"),
        ({"offset": torch.tensor([], dtype=torch.long)}, r"found \[\]"),
        ({"feat": torch.ones(2, 5)}, r"feat of shape \(2, 4\), found \(2, 5\)"),
        ({"feat": torch.ones(3, 4)}, r"found \(3, 4\)"),
    ],
)
def test_clouds_that_cannot_be_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        model()(cloud(PAIR) | changes)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"coord": PAIR * 0.1, "offset": torch.tensor([2])}, "found coord, offset"),
        ({"coord": PAIR * 0.1, "grid_coord": PAIR}, "offset or batch"),
        ({"coord": PAIR * 0.1, "grid_coord": PAIR, "offset": torch.tensor([2])}, r"feat of shape \(2, 4\), found None"),
        ({"coord": PAIR * 0.1, "grid_coord": PAIR, "batch": torch.tensor([1, 0])}, "falls or is negative"),
        ({"coord": PAIR * 0.1, "grid_coord": PAIR, "batch": torch.tensor([0, 2])}, r"found \[1, 1, 2\]"),
        ({"coord": PAIR * 0.1, "grid_size": 0.0, "offset": torch.tensor([2])}, "positive grid_size, found 0.0"),
        ({"coord": PAIR * 0.1, "grid_size": 1e-30, "offset": torch.tensor([2])}, "found 32 and 96"),
        ({"coord": PAIR[:0] * 0.1, "grid_coord": PAIR[:0], "offset": torch.tensor([0])}, "at least one row"),
        ({"coord": PAIR[:0] * 0.1, "grid_size": 0.1, "batch": torch.tensor([]).long()}, "at least one row"),
    ],
)
def test_incomplete_clouds_are_refused(points, message):
    with pytest.raises(DataError, match=message):
        model()(points)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, "Expected a condition of ScanNet, S3DIS, Structured3D, found none"),
        ({"condition": []}, "found none"),
        ({"condition": "Matterport"}, "found Matterport"),
        ({"condition": "ScanNet"}, r"context of shape \(1 or 1, 256\), found None"),
        ({"condition": "ScanNet", "context": torch.ones(2, 256)}, r"found \(2, 256\)"),
    ],
)
def test_batches_without_their_data_set_are_refused(named, message):
    with pytest.raises(DataError, match=message):
        model(**PPT, pdnorm_adaptive=True)(cloud(PAIR) | named)


def test_training_needs_two_voxels_at_every_level():
    with pytest.raises(DataError, match="at least 2 voxels at every level"):
        model().train()(cloud(PAIR))
