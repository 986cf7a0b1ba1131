"""Answers a second and their latency: one client, 32 clients, and 32 clients where questions are answered one by one.

Budgets: p50 of one client 300 ms on two cores; 32 clients for 60 s without an error; at least 4 times the answers a second of
batch size 1. `bentoml serve` runs in its own process on the packaged model, from an unpacked copy whose `params.yaml` says
the batch size; clients are threads of this one, each with a connection that it keeps, asking test questions of the packaged rooms.
"""

import http.client
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from r1pipe.datasets.sample import Sample
from r1pipe.files import read_models
from r1pipe.params import Params
from r1pipe.serving.bundle import Bundle, find

ROOT = Path(__file__).parents[1]
CLIENTS, SECONDS, ONE_CLIENT_SECONDS = 32, 60, 20
START_S = 600
MEASURED = ("r1_batch_size_sum", "r1_batch_size_count")


class Measured(NamedTuple):
    """A time of asking."""

    seconds: list[float]
    """Of each answer."""

    errors: int
    per_second: float
    batch_size: float
    """Questions answered together, the mean."""


class Address(NamedTuple):
    """Where a server listens."""

    port: int

    def get(self, path: str) -> bytes:
        """The body at a path; empty where there is no answer or it is no 200."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read() if response.status == 200 else b""
        except OSError:
            return b""
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether the model answers."""
        return self.get("/readyz") != b""

    def batches(self) -> tuple[float, float]:
        """Questions and batches so far."""
        lines = dict(line.rsplit(" ", 1) for line in self.get("/metrics").decode().splitlines() if line[:1] != "#")
        questions, batches = (float(lines.get(name, 0)) for name in MEASURED)
        return questions, batches


class Serving(NamedTuple):
    """A server that is ready."""

    address: Address
    process: "subprocess.Popen[bytes]"


@contextmanager
def server(bundle: Bundle, *, batch_size: int) -> Iterator[Serving]:
    """`bentoml serve` on a copy of the bundle that answers so many questions at once."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "bento"
        shutil.copytree(bundle.root, home)
        # The code that is measured is this checkout's.
        shutil.rmtree(home / "r1pipe")
        shutil.copytree(ROOT / "r1pipe", home / "r1pipe", ignore=shutil.ignore_patterns("__pycache__"))
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        values["serve"]["max_batch_size"] = batch_size
        (home / "params.yaml").write_text(yaml.safe_dump(values))
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = int(free.getsockname()[1])
        environment = os.environ | {"BENTOML_HOME": name, "BENTOML_DO_NOT_TRACK": "True"}
        command = [sys.executable, "-m", "bentoml", "serve", "--port", str(port)]
        with (Path(name) / "log").open("w") as log:
            serving = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        try:
            address = Address(port)
            wait(address, serving)
            yield Serving(address, serving)
        finally:
            serving.terminate()
            serving.wait()


def wait(address: Address, serving: "subprocess.Popen[bytes]") -> None:
    """Until the model answers.

    Raises:
        RuntimeError: if the server ends instead, or takes minutes.
    """
    deadline = time.monotonic() + START_S
    while not address.is_ready():
        if serving.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Expected a server that is ready, found one that ended or never was.")
        time.sleep(0.5)


def questions(params: Params, scene_ids: Sequence[str]) -> list[bytes]:
    """The bodies of test questions about these rooms."""
    samples = read_models(ROOT / params.paths.samples / f"{params.evaluate.split}.jsonl", Sample)
    asked = [
        s for s in samples if s.scene_id in scene_ids and s.task in ("qa", "grounding") and "<obj_" not in s.question
    ]
    bodies = [{"scene_id": s.scene_id, "question": s.question, "task": s.task} for s in asked]
    random.Random(0).shuffle(bodies)
    return [json.dumps(body).encode() for body in bodies]


def measure(address: Address, bodies: Sequence[bytes], *, clients: int, seconds: float) -> Measured:
    """Ask from so many clients at once, each the next question when it has its answer."""
    taken: list[float] = []
    errors = 0
    lock = threading.Lock()
    deadline = time.monotonic() + seconds

    def ask(number: int) -> None:
        nonlocal errors
        connection = http.client.HTTPConnection("localhost", address.port, timeout=120)
        chosen = random.Random(number)
        while time.monotonic() < deadline:
            start = time.perf_counter()
            connection.request("POST", "/answer", chosen.choice(bodies), {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            with lock:
                taken.append(time.perf_counter() - start)
                errors += response.status != 200
        connection.close()

    before = address.batches()
    start = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lasted = time.perf_counter() - start
    asked, batches = (after - count for after, count in zip(address.batches(), before, strict=True))
    return Measured(taken, errors, len(taken) / lasted, asked / max(1, batches))


def show(name: str, measured: Measured) -> None:
    """Print a row."""
    p50, p99 = 1000 * np.quantile(measured.seconds, [0.5, 0.99])
    print(
        f"{name:34s} {measured.per_second:7.1f}/s  p50 {p50:6.0f} ms  p99 {p99:6.0f} ms  "
        f"{len(measured.seconds):6d} answers, {measured.errors} errors, {measured.batch_size:.1f} together",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    print(
        f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    bundle, params = find(ROOT), Params.load(ROOT / "params.yaml")
    bodies = questions(params, [path.stem for path in bundle.features.glob("*.safetensors")])
    with server(bundle, batch_size=params.serve.max_batch_size) as serving:
        measure(serving.address, bodies, clients=CLIENTS, seconds=5)
        one = measure(serving.address, bodies, clients=1, seconds=ONE_CLIENT_SECONDS)
        show("1 client", one)
        together = measure(serving.address, bodies, clients=CLIENTS, seconds=SECONDS)
        show(f"{CLIENTS} clients", together)
    with server(bundle, batch_size=1) as serving:
        measure(serving.address, bodies, clients=CLIENTS, seconds=5)
        alone = measure(serving.address, bodies, clients=CLIENTS, seconds=SECONDS)
        show(f"{CLIENTS} clients, batch size 1", alone)
    ratio = together.per_second / alone.per_second
    print(f"batching: {ratio:.1f} times the answers a second {'holds' if ratio >= 4 else 'MISSED'} (budget 4)")


if __name__ == "__main__":
    main()
