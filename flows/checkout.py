"""Checkouts: the folder at hand, or a worker's own clone of a commit; one run at a time in each.

A worker keeps its clones below `R1PIPE_CHECKOUTS` (`~/.cache/r1pipe`), one a run that it runs at once. They share a DVC
cache and, unless `R1PIPE_WORK` names a wider one, the folder of work in progress.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dvc.dependency.base import DependencyDoesNotExistError
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage
from dvc.stage.cache import RunCacheNotFoundError
from pydantic import BaseModel, ConfigDict

from flows.commands import dvc, execute
from flows.dag import Dag
from r1pipe.errors import GateError
from r1pipe.files import try_lock, write_text
from r1pipe.stages.work import SHARED

Hear = Callable[[str], None]
Lock = dict[str, Any]
"""What dvc.lock says of some stages."""


class Source(BaseModel):
    """What workers work on, and the bus between them."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    repository: str
    """What git clones: an address or a path."""

    commit: str
    """A branch, a tag or a hash."""

    remote: str
    """The address of the DVC remote through which data and run cache travel."""


def home() -> Path:
    """Where this worker keeps its clones."""
    return Path(os.environ.get("R1PIPE_CHECKOUTS", "~/.cache/r1pipe")).expanduser().absolute()


def shared_work() -> dict[str, str]:
    """The variable that lets another clone go on with an interrupted stage."""
    return {SHARED: os.environ.get(SHARED, str(home() / "work"))}


@contextmanager
def held(root: Path, holder: str, *, wait_s: float) -> Iterator[None]:
    """Keep other runs off a checkout.

    Raises:
        GateError: if another run is still there after `wait_s`; the sentence says which.
    """
    (root / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    with (root / ".dvc/tmp/flow.lock").open("a+") as file:
        deadline = time.monotonic() + wait_s
        while not try_lock(file):
            if time.monotonic() > deadline:
                file.seek(0)
                raise GateError(f"Expected no other run on {root.absolute()} after {wait_s:g} s, found {file.read()}.")
            time.sleep(1.0)
        file.truncate(0)
        file.write(f"{holder}, process {os.getpid()}")
        file.flush()
        yield


@contextmanager
def own_clone() -> Iterator[Path]:
    """A clone that no other run uses; this process works in it."""
    for number in itertools.count():
        root = home() / f"clone-{number}"
        root.parent.mkdir(parents=True, exist_ok=True)
        with root.with_suffix(".lock").open("w") as file:
            if try_lock(file):
                root.mkdir(exist_ok=True)
                with contextlib.chdir(root):
                    yield root
                return


def check_out(root: Path, source: Source, overrides: Sequence[str], hear: Hear) -> None:
    """Bring a clone to a commit, its parameters and its remote.

    Raises:
        GateError: if git, or the composition of the parameters, fails; with its sentence.
    """
    if not (root / ".git").exists():
        execute(["git", "init", "--quiet"], root, hear)
    # A tag that the repository does not have goes: it may be a promotion that was taken back.
    refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    execute(["git", "fetch", "--quiet", "--prune", source.repository, *refs], root, hear)
    execute(["git", "checkout", "--quiet", "--force", "--detach", _resolved(root, source.commit)], root, hear)
    compose(root, overrides, hear)
    settings = f"[core]\n    remote = bus\n[cache]\n    dir = {home() / 'cache'}\n"
    write_text(root / ".dvc/config.local", f"{settings}['remote \"bus\"']\n    url = {source.remote}\n")


def _resolved(root: Path, commit: str) -> str:
    """A branch means the repository's, of which a clone has no own one."""
    return f"origin/{commit}" if (root / ".git/refs/remotes/origin" / commit).exists() else commit


def compose(root: Path, overrides: Sequence[str], hear: Hear) -> None:
    """Write params.yaml with these overrides, as `dvc exp run -S` does; without any it stays as it is."""
    if overrides:
        execute(["python", "-m", "tools.compose", *overrides], root, hear)


def read_lock(root: Path, stages: Sequence[str]) -> Lock:
    """What dvc.lock says of these stages."""
    path = root / "dvc.lock"
    known: Lock = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else {}
    return {stage: known[stage] for stage in stages if stage in known}


def write_lock(root: Path, stages: Mapping[str, Any]) -> None:
    """Have dvc.lock say this, and nothing of other stages."""
    text = yaml.safe_dump({"schema": "2.0", "stages": dict(stages)}, sort_keys=False)
    write_text(root / "dvc.lock", text)


def pull(root: Path, stages: Sequence[str], hear: Hear) -> None:
    """Fetch the outputs of stages that dvc.lock knows."""
    if stages:
        execute(dvc("pull", *stages), root, hear)


def push(root: Path, stage: str, hear: Hear) -> None:
    """Send a stage's outputs, and the run that made them."""
    execute(dvc("push", "--run-cache", stage), root, hear)


def settle(dag: Dag, forced: Sequence[str], *, from_remote: bool) -> list[str]:
    """Bring up to date, without running anything, what DVC's run cache holds, in the working directory.

    Returns:
        the stages that are left, in order: they, or those that they read, have to run.
    """
    left: list[str] = []
    with Repo() as repo, lock_repo(repo):
        if from_remote:
            repo.stage_cache.pull(None)
        stages = {stage.name: stage for stage in repo.index.stages}
        for name, node in dag.items():
            if name in forced or set(left) & set(node.upstream) or not _settled(stages[name], from_remote):
                left.append(name)
    return left


def _settled(stage: PipelineStage, from_remote: bool) -> bool:
    if not stage.changed():
        return True
    try:
        stage.repo.stage_cache.restore(stage, pull=from_remote)
    except (RunCacheNotFoundError, DependencyDoesNotExistError):
        return False
    stage.save(run_cache=False)
    stage.dump(update_pipeline=False)
    return True
