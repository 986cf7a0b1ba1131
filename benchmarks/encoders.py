"""How long Point Transformer v3 takes for 8,000 voxels of 2 cm, in the authors' ScanNet configuration.

The baseline is the authors' code with spconv's native algorithm on two CPU threads and as many voxels, timed once and not here: its
ratio is exact only on the machine that it was timed on. `tests/test_ptv3_reference.py` holds ours to the same numbers. Memory is the
most that a forward needs beside the weights. Run: python benchmarks/encoders.py, on a machine with two idle cores; where other
processes run, GOMP_SPINCOUNT=1000 keeps the threads from spinning for long while they wait for each other.
"""

import ctypes
import platform
import statistics
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1pipe.models.ptv3 import PointTransformerV3

NUM_VOXELS, VOXEL_SIZE, IN_CHANNELS = 8000, 0.02, 6
NUM_THREADS, WARM_UP, RUNS = 2, 3, 15
BASELINE_S = {("whole", 1024): 1.00, ("encoder", 1024): 0.52, ("whole", 128): 0.29, ("encoder", 128): 0.18}
BUDGET_S = {1024: 0.9, 128: 0.27}


class Row(NamedTuple):
    """What was measured of one network on one device."""

    seconds: list[float]
    peak_mb: float


def shell(low: tuple[int, int, int], size: tuple[int, int, int]) -> Tensor:
    """The outermost voxels of a cuboid, `(N, 3)`."""
    cell_N3 = torch.cartesian_prod(*[torch.arange(n) for n in size])
    is_face_N = ((cell_N3 == 0) | (cell_N3 == torch.tensor(size) - 1)).any(dim=1)
    return cell_N3[is_face_N] + torch.tensor(low)


def room() -> dict[str, Tensor]:
    """The corner of a room with three pieces of furniture: the voxels nearest to the corner, in random sequence."""
    generator = torch.Generator().manual_seed(0)
    floor, walls = shell((0, 0, 0), (90, 80, 1)), [shell((0, 0, 0), (1, 80, 60)), shell((0, 0, 0), (90, 1, 60))]
    furniture = [shell((6, 8, 1), (30, 14, 18)), shell((10, 34, 1), (16, 16, 22)), shell((42, 20, 1), (20, 10, 36))]
    cell_N3 = torch.unique(torch.cat([floor, *walls, *furniture]), dim=0)
    nearest_N = cell_N3.square().sum(dim=1).argsort(stable=True)[:NUM_VOXELS]
    cell_N3 = cell_N3[nearest_N[torch.randperm(NUM_VOXELS, generator=generator)]]
    return {
        "coord": cell_N3 * VOXEL_SIZE,
        "grid_coord": cell_N3,
        "feat": torch.randn(NUM_VOXELS, IN_CHANNELS, generator=generator),
        "offset": torch.tensor([NUM_VOXELS]),
    }


def memory_mb(device: str, field: str) -> float:
    """What tensors hold on the GPU, or this process by its name in /proc: VmRSS now, VmHWM at most."""
    if device == "cuda":
        return {"VmRSS": torch.cuda.memory_allocated, "VmHWM": torch.cuda.max_memory_allocated}[field]() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def forget_peak(device: str) -> None:
    """From here on VmHWM is what is used from here on; freed memory goes back first, so that it counts when used again."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def measure(network: PointTransformerV3, cloud: dict[str, Tensor], device: str) -> Row:
    """Times of single forwards after a warm-up, and the most memory that they need beside the weights."""
    for _ in range(WARM_UP):
        network(cloud)
    forget_peak(device)
    before_mb, seconds = memory_mb(device, "VmRSS"), []
    for _ in range(RUNS):
        start = time.perf_counter()
        network(cloud)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return Row(seconds, memory_mb(device, "VmHWM") - before_mb)


def rows(device: str) -> Iterator[tuple[str, int, Row]]:
    """The whole network and the encoder alone, in large and in small patches."""
    cloud = {name: values.to(device) for name, values in room().items()}
    for patch, part in product((1024, 128), ("whole", "encoder")):
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"enc_patch_size": (patch,) * 5, "dec_patch_size": (patch,) * 4}
        network = PointTransformerV3(IN_CHANNELS, **sizes, enc_mode=part == "encoder").to(device).eval()
        with torch.inference_mode():
            yield part, patch, measure(network, cloud, device)


def main() -> None:
    """Time every device there is, print the table and the verdict."""
    torch.set_num_threads(NUM_THREADS)
    print(f"Point Transformer v3, {NUM_VOXELS:,} voxels, {RUNS} runs; {platform.processor() or platform.machine()}")
    print(f"{'device':8}{'part':9}{'patch':>6}{'median s':>10}{'min':>8}{'max':>8}{'points/s':>11}{'MB':>7}", end="")
    print(f"{'authors s':>11}{'ratio':>8}")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for part, patch, (seconds, peak_mb) in rows(device):
            median, base = statistics.median(seconds), BASELINE_S[part, patch]
            print(f"{device:8}{part:9}{patch:>6}{median:>10.3f}{min(seconds):>8.3f}{max(seconds):>8.3f}", end="")
            print(f"{NUM_VOXELS / median:>11,.0f}{peak_mb:>7.0f}", end="")
            print(f"{base:>11.2f}{base / median:>7.1f}x" if device == "cpu" else "")
            if device == "cpu" and part == "whole":
                verdict = "within" if median <= BUDGET_S[patch] else "OVER"
                print(f"{'':8}budget {BUDGET_S[patch]} s: {verdict}")


if __name__ == "__main__":
    main()
