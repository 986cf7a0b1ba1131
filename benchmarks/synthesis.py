"""Requests a second that the stage `synthesize` sends against the limiter's setting, and its peak memory by samples.

Budgets: 95 % of the setting at 10, 50 and 200 requests a second with 300 ms latency; memory flat from 1,000 to 30,000
samples. The stage runs as its own process against a local server that speaks Gemini's REST API; the server counts.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from r1pipe.datasets import Sample
from r1pipe.geometry import Box
from r1pipe.params import Params
from r1pipe.scenes import Scene, SceneObject

ROOT = Path(__file__).parents[1]
RATES = (10, 50, 200)
LATENCY_S = 0.3
SECONDS_A_RATE = 30
SAMPLES = (1_000, 30_000)
SAMPLES_A_SCENE = 50
UNLIMITED = 10_000.0
LABELS = ("chair", "table", "bed", "lamp", "desk", "sofa", "shelf", "door", "window", "box")


class Measured(NamedTuple):
    """One run of the stage."""

    requests: int
    per_second: float
    peak_mib: float
    cpu_ms: float
    """Processor time of the stage a request, its start included; what other processes take from the machine is not in it."""


def scene(number: int) -> Scene:
    """A room with thirty objects, each of a hundred points."""
    rng = np.random.default_rng(number)
    boxes = [Box(*map(float, (*rng.uniform(-3, 3, 3), *rng.uniform(0.2, 1.5, 3)))) for _ in range(30)]
    xyz_P3 = np.concatenate([rng.uniform(box.low, box.high, (100, 3)) for box in boxes]).astype(np.float32)
    rgb_P3 = np.repeat(rng.integers(0, 256, (30, 3)), 100, axis=0).astype(np.uint8)
    objects = tuple(SceneObject(i, LABELS[i % len(LABELS)], 0, box) for i, box in enumerate(boxes))
    return Scene(f"scene{number:04d}_00", xyz_P3, rgb_P3, np.repeat(np.arange(30), 100).astype(np.int32), objects)


def prepare(folder: Path, url: str, *, num_samples: int, rate: float, concurrency: int) -> None:
    """Parameters, scenes and samples, as the stage finds them."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["synthesize"] |= {"teacher": "gemini", "concurrency": concurrency}
    values["synthesize"]["gemini"] |= {"base_url": url, "requests_per_second": rate}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    paths = Params.load(folder / "params.yaml").paths
    (folder / paths.scenes).mkdir(parents=True)
    (folder / paths.samples).mkdir()
    (folder / paths.samples / "val.jsonl").touch()
    with (folder / paths.samples / "train.jsonl").open("w") as file:
        for i in range(num_samples):
            if i % SAMPLES_A_SCENE == 0:
                room = scene(i // SAMPLES_A_SCENE)
                room.save(folder / paths.scenes)
            question = f"what is question {i} about, seen from the door?"
            shared = {"scene_id": room.id, "task": "qa", "question": question, "source": "scanqa", "split": "train"}
            file.write(Sample(id=f"scanqa-{i}", answers=("a chair",), **shared).model_dump_json() + "\n")


@contextmanager
def server(latency_s: float) -> Iterator[subprocess.Popen[str]]:
    """The server of the tests, in a process of its own."""
    command = [sys.executable, str(ROOT / "tests/gemini_server.py"), str(latency_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def measure(*, num_samples: int, rate: float, concurrency: int, latency_s: float) -> Measured:
    """Run the stage once.

    Raises:
        CalledProcessError: if it fails.
    """
    with tempfile.TemporaryDirectory() as name, server(latency_s) as serving:
        assert serving.stdin is not None
        assert serving.stdout is not None
        folder = Path(name)
        prepare(folder, serving.stdout.readline().strip(), num_samples=num_samples, rate=rate, concurrency=concurrency)
        command = [sys.executable, "-m", "r1pipe.stages.synthesize"]
        environment = os.environ | {"GEMINI_API_KEY": "none", "PYTHONPATH": str(ROOT)}
        with (folder / "log").open("w") as log:
            stage = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
        _, status, usage = os.wait4(stage.pid, 0)
        stage.returncode = os.waitstatus_to_exitcode(status)
        if stage.returncode:
            raise subprocess.CalledProcessError(stage.returncode, command, stderr=(folder / "log").read_text())
        serving.stdin.close()
        count, seconds = serving.stdout.readline().split()
    cpu_s = usage.ru_utime + usage.ru_stime
    return Measured(int(count), (int(count) - 1) / float(seconds), usage.ru_maxrss / 1024, 1000 * cpu_s / int(count))


def main() -> None:
    """Print the tables."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    for rate in RATES:
        num_samples = rate * SECONDS_A_RATE // 2
        seen = measure(num_samples=num_samples, rate=rate, concurrency=2 * rate, latency_s=LATENCY_S)
        share = seen.per_second / rate
        verdict = "holds" if share >= 0.95 else "MISSED"
        print(
            f"{rate:4d}/s set: {seen.per_second:6.1f}/s, {share:.1%} {verdict}, {seen.cpu_ms:.1f} ms CPU each",
            flush=True,
        )
    peaks = []
    for num_samples in SAMPLES:
        seen = measure(num_samples=num_samples, rate=UNLIMITED, concurrency=64, latency_s=0.0)
        peaks.append(seen.peak_mib)
        print(f"{num_samples:6d} samples: peak {seen.peak_mib:.0f} MiB, {seen.per_second:.0f} requests/s", flush=True)
    growth = peaks[-1] / peaks[0] - 1
    print(f"memory grows by {growth:.1%} {'holds' if growth <= 0.1 else 'MISSED'}")


if __name__ == "__main__":
    main()
