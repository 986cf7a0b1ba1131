"""The pipeline as a Prefect flow: DVC decides what is stale, Prefect runs it, shows it and reports it.

    python -m flows.pipeline                 one run now, on Prefect's embedded server
    python -m flows.pipeline --cron "0 3 * * *"   serve it: scheduled runs, seen in Prefect's UI

The stages, their order and where each may run stand in dvc.yaml; nothing of that is repeated here.
"""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from dvc.repo import Repo
from prefect import flow, get_run_logger, task
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from r1pipe.stages.runner import environment

CONCURRENT_STAGES = 2
"""Independent stages that run side by side; each has `base.threads` threads of its own."""


class Node(NamedTuple):
    """A stage of dvc.yaml."""

    upstream: tuple[str, ...]
    worker: str
    """`cpu` or `gpu`, from the stage's `meta`."""


def read_dag(root: Path = Path()) -> dict[str, Node]:
    """The stages of dvc.yaml in an order in which they can run."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph
        workers = {stage.addressing: stage.meta["worker"] for stage in graph}
        upstream = {stage.addressing: tuple(sorted(s.addressing for s in graph.successors(stage))) for stage in graph}
    ordered: dict[str, Node] = {}
    while len(ordered) < len(upstream):
        ready = sorted(s for s in upstream if s not in ordered and all(u in ordered for u in upstream[s]))
        ordered.update({stage: Node(upstream[stage], workers[stage]) for stage in ready})
    return ordered


@task(task_run_name="{stage}")
def reproduce(stage: str) -> None:
    """Bring one stage up to date; its lines go to the run's log, its warnings (a dead reward, say) as such.

    Raises:
        RuntimeError: if the stage fails, with the last lines that it printed.
    """
    logger = get_run_logger()
    last: list[str] = []
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    ) as process:
        for line in process.stdout or ():
            logger.log(logging.WARNING if " WARNING " in line else logging.INFO, line.rstrip())
            last = [*last[-4:], line.strip()]
    if process.returncode:
        raise RuntimeError(f"Expected stage {stage} to end with status 0, found {process.returncode}: {' '.join(last)}")


@flow(name="r1pipe", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def pipeline() -> None:
    """Every stage after those that it reads; a failed stage stops what depends on it, and the run."""
    runs: dict[str, PrefectFuture[None]] = {}
    for stage, node in read_dag().items():
        runs[stage] = submit(stage, node, runs)
    wait(list(runs.values()))
    for run in runs.values():
        run.result()


def submit(stage: str, node: Node, runs: Mapping[str, PrefectFuture[None]]) -> PrefectFuture[None]:
    """Start a stage as soon as those it reads are done; its tag lets an operator limit GPU stages."""
    tagged = reproduce.with_options(tags=[f"worker:{node.worker}"])
    return tagged.submit(stage, return_state=False, wait_for=[runs[name] for name in node.upstream])


def main() -> None:
    """Run now, or serve on a schedule."""
    parser = argparse.ArgumentParser(description="Run the pipeline of dvc.yaml as a Prefect flow.")
    parser.add_argument("--cron", help='serve the flow on this schedule, e.g. "0 3 * * *" for every night at three')
    cron = parser.parse_args().cron
    if cron:
        pipeline.serve(name="scheduled", cron=cron)
    else:
        pipeline()


if __name__ == "__main__":
    main()
