"""Work on scenes spread over a Ray cluster whose nodes see this run's directory under the same path.

Ray comes with `pip install 'r1pipe[cluster]'`, here and on every node, and r1pipe with the same version as here.
"""

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from r1pipe.errors import MissingError, R1Error

logger = logging.getLogger(__name__)

MAX_RESTARTS = 2
"""How often Ray starts a worker that has died again, and gives it its scene again."""

PATIENCE_S = 10.0
"""How long a cluster may take to answer the first time."""

Work = Callable[[str], None]


class Worker:
    """One process of the cluster, which unpacks the work with its first scene, and keeps it."""

    def __init__(self, packed: bytes, directory: Path) -> None:
        self.packed, self.directory = packed, directory

    @cached_property
    def work(self) -> Work:
        """What is done to each scene; on one thread, as in a local process of several."""
        if not self.directory.is_dir():
            raise MissingError(
                f"Expected {self.directory} on every node of the cluster, found none on {os.uname().nodename}."
            )
        os.chdir(self.directory)
        torch.set_num_threads(1)
        work: Work = pickle.loads(self.packed)
        return work

    def do(self, scene_id: str) -> None:
        """Work on one scene."""
        self.work(scene_id)


@contextmanager
def spread(work: Work, scene_ids: Sequence[str], address: str) -> Iterator[Iterator[None]]:
    """`work` on every scene, as an iterator that is as long as the scenes; each worker has one scene at a time.

    Args:
        work: what is done to a scene, picklable; it leaves its result in a file.
        scene_ids: the scenes.
        address: of the cluster, as `ray.init` takes it: `host:6379`, `ray://host:10001`, or `auto` on one of its nodes.

    Raises:
        MissingError: if Ray is not installed, there is no cluster, or a worker dies again and again.
    """
    ray = _ray()
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError) as error:
        raise MissingError(f"Expected a Ray cluster at {address}, found none: {_first(error)}.") from None
    try:
        yield _map(ray, _workers(ray, work, len(scene_ids)), scene_ids)
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise MissingError(
            "Expected the package ray to work on a cluster, found none; `pip install 'r1pipe[cluster]'`."
        ) from None
    return ray


def _knock(address: str) -> None:
    """Fail in seconds where nobody listens; Ray itself tries for a quarter of an hour."""
    if address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()


def _workers(ray: Any, work: Work, most: int) -> list[Any]:
    """A worker for every GPU of the cluster; where it has none, for every CPU."""
    resources = ray.cluster_resources()
    num_gpus, num_cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if num_cpus == 0:
        raise MissingError(f"Expected CPUs in the Ray cluster, found only {sorted(resources)}.")
    count = min(num_gpus or num_cpus, most)
    needs = {"num_cpus": 1, "num_gpus": int(num_gpus > 0)}
    actor = ray.remote(Worker).options(**needs, max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS)
    logger.info("%d workers on %d nodes of the Ray cluster", count, len(ray.nodes()))
    packed = pickle.dumps(work)
    return [actor.remote(packed, Path.cwd()) for _ in range(count)]


def _map(ray: Any, workers: Sequence[Any], scene_ids: Sequence[str]) -> Iterator[None]:
    """Give each worker a scene, and another when it is done."""
    waiting = iter(scene_ids)
    # The workers first: once they are used up, no scene is taken that none of them gets.
    first = zip(workers, waiting, strict=False)
    running = {worker.do.remote(scene_id): (worker, scene_id) for worker, scene_id in first}
    while running:
        (done,), _ = ray.wait(list(running))
        worker, scene_id = running.pop(done)
        _finish(ray, done, scene_id)
        following = next(waiting, None)
        if following is not None:
            running[worker.do.remote(following)] = (worker, following)
        yield


def _finish(ray: Any, done: Any, scene_id: str) -> None:
    """Raise what went wrong with a scene."""
    try:
        ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, R1Error):
            raise error.cause from None
        error.add_note(f"This was scene {scene_id}.")
        raise
    except ray.exceptions.RayActorError as error:
        raise MissingError(
            f"Expected a worker of the cluster to survive scene {scene_id}, found it dead after "
            f"{MAX_RESTARTS} restarts: {_first(error)}."
        ) from None


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
