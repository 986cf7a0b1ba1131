"""Point Transformer v3: the curves, the patches, the convolution, and the model as a whole."""

from itertools import pairwise

import pytest
import torch
from tiny_clouds import ORDERS, cloud, grid, model
from torch.nn.functional import conv3d

from r1pipe.models.ptv3 import PointTransformerV3
from r1pipe.models.ptv3.level import Level
from r1pipe.models.ptv3.serialization import CURVES, hilbert_curve, serialize, z_curve
from r1pipe.models.ptv3.sparse import Sites, SubMConv3d


def slow_z(x: int, y: int, z: int, depth: int) -> int:
    return sum((x >> i & 1) << 3 * i + 2 | (y >> i & 1) << 3 * i + 1 | (z >> i & 1) << 3 * i for i in range(depth))


def slow_hilbert(point: tuple[int, int, int], depth: int) -> int:
    """Skilling bit by bit, then Gray to binary over the interleaved bits."""
    axes = [[int(b) for b in f"{value:0{depth}b}"] for value in point]
    for bit in range(depth):
        for axis in range(3):
            for low in range(bit + 1, depth):
                if axes[axis][bit]:
                    axes[0][low] ^= 1
                else:
                    axes[0][low], axes[axis][low] = axes[axis][low], axes[0][low]
    code, parity = 0, 0
    for bit in range(depth):
        for axis in range(3):
            parity ^= axes[axis][bit]
            code = code << 1 | parity
    return code


def test_z_codes_interleave_the_bits_of_x_y_z():
    grid_N3 = grid(500, side=1 << 10)
    assert z_curve(grid_N3, 10).tolist() == [slow_z(*row, 10) for row in grid_N3.tolist()]


def test_hilbert_codes_equal_the_slow_reference():
    grid_N3 = grid(500, side=1 << 9)
    assert hilbert_curve(grid_N3, 9).tolist() == [slow_hilbert(tuple(row), 9) for row in grid_N3.tolist()]


def test_the_hilbert_curve_visits_each_cell_once_in_steps_of_one():
    cells_N3 = torch.cartesian_prod(*[torch.arange(8)] * 3)
    code_N = hilbert_curve(cells_N3, 3)
    assert sorted(code_N.tolist()) == list(range(512))
    path = cells_N3[code_N.argsort()].tolist()
    assert all(sum(abs(a - b) for a, b in zip(*step, strict=True)) == 1 for step in pairwise(path))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [2, 5, 11, 16])
def test_a_code_without_three_bits_is_the_code_of_the_coarser_cell(order, depth):
    grid_N3 = torch.randint(0, 1 << depth, (200, 3), generator=torch.Generator().manual_seed(depth))
    assert torch.equal(CURVES[order](grid_N3, depth) >> 3, CURVES[order](grid_N3 >> 1, depth - 1))


def test_the_cloud_stands_above_the_place_on_the_curve():
    code_RN = serialize(torch.tensor([[1, 0, 0], [1, 0, 0]]), torch.tensor([0, 3]), depth=2, orders=("z", "z-trans"))
    assert code_RN.tolist() == [[4, 3 * 64 + 4], [2, 3 * 64 + 2]]


@pytest.mark.parametrize(
    ("sizes", "patch_size", "expected"),
    [
        pytest.param([4], 2, [0, 1, 2, 3], id="a multiple is cut, not padded"),
        pytest.param([5], 3, [0, 1, 2, 3, 4, 2], id="the last patch borrows what stands K places before"),
        pytest.param([7], 3, [0, 1, 2, 3, 4, 5, 6, 4, 5], id="so that the tail reads the last K"),
        pytest.param([3, 5], 3, [0, 1, 2, 3, 4, 5, 6, 7, 5], id="clouds do not share patches"),
        pytest.param([2, 4], 4, [0, 1, None, None, 2, 3, 4, 5], id="a small cloud is one patch and shrinks no other"),
        pytest.param([2, 3], 8, [0, 1, None, 2, 3, 4], id="the largest of small clouds sets the size"),
    ],
)
def test_patches_are_runs_within_a_cloud(sizes, patch_size, expected):
    level = Level.read(cloud(*[grid(90, seed=i)[:n] for i, n in enumerate(sizes)]), ORDERS)
    patches = level.patches(patch_size)
    mask_S = torch.ones(len(patches.source), dtype=torch.bool) if patches.mask is None else patches.mask
    found = [rank if real else None for rank, real in zip(patches.source.tolist(), mask_S.tolist(), strict=True)]
    assert found == expected
    assert patches.source[patches.slot].tolist() == list(range(sum(sizes)))


def test_pooling_sorts_rows_by_the_first_order_and_shifts_grid_and_codes():
    level = Level.read(cloud(grid(300), grid(200, seed=1)), ORDERS)
    coarse, cluster_N, _, counts_M = level.pool(2)
    assert torch.equal(coarse.grid[cluster_N], level.grid >> 1)
    assert bool((coarse.codes[0].diff() > 0).all())
    assert torch.equal(coarse.codes, serialize(coarse.grid, coarse.batch, depth=level.depth - 1, orders=ORDERS))
    first_N3 = level.coord[cluster_N == 0]
    assert torch.allclose(coarse.coord[0], first_N3.mean(dim=0)) and int(counts_M[0]) == len(first_N3)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_the_submanifold_convolution_is_the_dense_one_at_the_active_voxels(kernel_size):
    torch.manual_seed(0)
    grid_N3, feat_NC = grid(200, side=8), torch.randn(1000, 3)
    feat_NC = feat_NC[: len(grid_N3)]
    conv = SubMConv3d(3, 5, kernel_size=kernel_size, bias=True).eval()
    sparse_NC = Sites(grid_N3, torch.zeros(len(grid_N3), dtype=torch.long)).convolve(conv, feat_NC)
    dense = torch.zeros(1, 3, 8, 8, 8)
    dense[0, :, *grid_N3.T] = feat_NC.T
    dense = conv3d(dense, conv.weight.permute(0, 4, 1, 2, 3), conv.bias, padding=kernel_size // 2)
    assert torch.allclose(sparse_NC, dense[0, :, *grid_N3.T].T, atol=1e-5)


@pytest.mark.parametrize("semantics", ["v1.5.1", "current"])
def test_a_cloud_has_the_same_features_alone_and_in_company(semantics):
    network, first, second = model(semantics=semantics), grid(700), grid(40, seed=1)
    with torch.no_grad():
        together_NC = network(cloud(first, second)).feat
        alone_NC = torch.cat([network(cloud(first)).feat, network(cloud(second)).feat])
    # The depth of the curves is that of the largest cloud, and both span the same cube here.
    assert torch.allclose(together_NC, alone_NC, atol=1e-5)


def test_features_follow_the_order_of_the_input():
    network, grid_N3 = model(), grid(400)
    shuffled_N = torch.randperm(len(grid_N3), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        straight, shuffled = network(cloud(grid_N3)), network(cloud(grid_N3[shuffled_N]))
    assert torch.allclose(straight.feat[shuffled_N], shuffled.feat, atol=1e-5)
    assert torch.equal(shuffled.grid_coord, grid_N3[shuffled_N])


def test_the_encoder_alone_returns_the_coarsest_rows():
    encoded = model(enc_mode=True)(cloud(grid(400), grid(30, seed=1)))
    assert encoded.feat.shape == (len(encoded.coord), 32)
    assert encoded.offset.tolist()[-1] == len(encoded.coord) and encoded.grid_coord.max() <= 24 >> 2


def test_the_two_semantics_differ_only_where_a_stage_has_several_blocks():
    points, one = cloud(grid(300)), {"enc_depths": (1, 1, 1), "dec_depths": (1, 1)}
    with torch.no_grad():
        several = [model(semantics=s)(points).feat for s in ("v1.5.1", "current")]
        single = [model(semantics=s, **one)(points).feat for s in ("v1.5.1", "current")]
    assert torch.equal(*single) and not torch.allclose(*several, atol=1e-3)


def test_gradients_reach_every_parameter_and_training_repeats_to_the_byte():
    def gradients() -> dict[str, bytes]:
        network = model(drop_path=0.3).train()
        network(cloud(grid(500), grid(60, seed=1))).feat.square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        return {name: p.grad.numpy().tobytes() for name, p in network.named_parameters() if p.grad is not None}

    assert gradients() == gradients()


def test_the_state_dict_has_the_authors_names():
    state = PointTransformerV3().state_dict()
    affine = ("weight", "bias")
    running = ("running_mean", "running_var", "num_batches_tracked")
    block = ["cpe.0", "cpe.1", "cpe.2", "norm1.0", "attn.qkv", "attn.proj", "norm2.0", "mlp.0.fc1", "mlp.0.fc2"]
    expected = {"embedding.stem.conv.weight"} | {f"embedding.stem.norm.{n}" for n in affine + running}
    for part, depths in (("enc", (2, 2, 2, 6, 2)), ("dec", (2, 2, 2, 2))):
        for s, depth in enumerate(depths):
            names = [f"block{i}.{name}.{n}" for i in range(depth) for name in block for n in affine]
            if part == "dec":
                names += [f"up.{p}.0.{n}" for p in ("proj", "proj_skip") for n in affine]
                names += [f"up.{p}.1.{n}" for p in ("proj", "proj_skip") for n in affine + running]
            elif s:
                names += [f"down.proj.{n}" for n in affine] + [f"down.norm.0.{n}" for n in affine + running]
            expected |= {f"{part}.{part}{s}.{name}" for name in names}
    assert set(state) == expected
    assert state["enc.enc0.block0.cpe.0.weight"].shape == (32, 3, 3, 3, 32)
    assert state["embedding.stem.conv.weight"].shape == (32, 5, 5, 5, 6)
    assert 46.0e6 < sum(p.numel() for p in PointTransformerV3().parameters()) < 46.4e6


def test_drop_rates_rise_through_the_encoder_and_fall_through_the_decoder():
    network = model(drop_path=0.3)
    rates = [block.drop_path.share for stage in network.decoder_stages for block in stage.blocks]
    assert rates == pytest.approx([0.3, 0.15, 0.0])
    assert [b.drop_path.share for b in network.encoder_stages[2].blocks] == pytest.approx([0.24, 0.3])
