"""This machine, the packages and the repository: what the tiny scale needs, and what more there is."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from r1pipe.doctor.compositions import composition
from r1pipe.doctor.findings import GIB, Finding, needed, useful
from r1pipe.errors import MissingError, R1Error
from r1pipe.metrics.meteor import find_jar
from r1pipe.metrics.wordnet import find_lemma
from r1pipe.params import Params

MIN_MEMORY_GIB = 6.0
MIN_DISK_GIB = 5.0
"""What the tiny scale writes to data/, models/, .work/ and the cache, with room to spare."""


class Hardware(NamedTuple):
    """What a training has to fit into, bytes."""

    memory: int
    gpus: tuple[int, ...]
    """Memory of each."""


def examine(home: Path) -> list[Finding]:
    """Everything worth knowing before a run from the folder `home`; no secret's value is among it."""
    return [*_machine(home), *_packages(), *_tools(), *_repository(home)]


def hardware() -> Hardware:
    """This machine's memory, and its GPUs as torch sees them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cuda = "torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())"
    found = _python(f"import torch; print(*({cuda}))")
    return Hardware(memory, tuple(map(int, (found or "").split())))


def _machine(home: Path) -> Iterator[Finding]:
    version = platform.python_version()
    yield needed(sys.version_info[:2] == (3, 11), "python", version, "3.11: the last with wheels of spconv")
    cores = len(os.sched_getaffinity(0))
    yield needed(cores >= 1, "cores", str(cores), "two finish the tiny scale in 15 minutes")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield needed(memory >= MIN_MEMORY_GIB, "memory", f"{memory:.1f} GiB", f"{MIN_MEMORY_GIB:g} GiB for tiny")
    disk = shutil.disk_usage(home).free / GIB
    yield needed(disk >= MIN_DISK_GIB, "free disk", f"{disk:.1f} GiB", f"{MIN_DISK_GIB:g} GiB for tiny")


def _packages() -> Iterator[Finding]:
    # Importing is the test: a package can be installed and not load.
    torch = _python("import torch; print(torch.__version__)")
    yield needed(torch is not None, "torch", torch or "does not import", "every model")
    gpu = _python("import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')")
    yield useful(bool(gpu), "CUDA", gpu or "no device", "scales small and paper")
    spconv = _python("import spconv.pytorch, spconv; print(spconv.__version__)")
    yield needed(spconv is not None, "spconv", spconv or "does not import", "the point encoder")
    for name, purpose in (("trl", "training"), ("dvc", "the pipeline"), ("bentoml", "serving")):
        version = _installed(name)
        yield needed(version is not None, name, version or "not installed", purpose)


def _python(code: str) -> str | None:
    """What a fresh interpreter prints, or None where it fails."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools() -> Iterator[Finding]:
    git = shutil.which("git")
    yield needed(git is not None, "git", git or "not on the path", "DVC, and the commit beside every number")
    yield _scorer("METEOR", find_jar, "`r1pipe score` with it")
    yield _scorer("WordNet", find_lemma, "ScanQA's F-value in `r1pipe score`")
    key = "set" if os.environ.get("GEMINI_API_KEY") else "not set"
    yield useful(key == "set", "GEMINI_API_KEY", key, "the teacher `gemini`; `scripted` needs none")


def _scorer(what: str, find: Callable[[], object], purpose: str) -> Finding:
    try:
        find()
    except MissingError as error:
        return Finding("optional", what, str(error), purpose)
    return Finding("ok", what, "there", purpose)


def _repository(home: Path) -> Iterator[Finding]:
    path = home / "params.yaml"
    try:
        params = Params.load(path)
    except R1Error as error:
        yield Finding("missing", "params.yaml", str(error), "every stage")
        return
    yield needed(True, "params.yaml", composition(home), "every stage")
    scannet = params.paths.scannet
    found = "null" if scannet is None else f"{scannet}{'' if scannet.is_dir() else ', no such folder'}"
    yield useful(scannet is not None and scannet.is_dir(), "paths.scannet", found, "real scans; procedural needs none")
    cache = home / ".dvc" / "cache"
    yield useful(cache.is_dir(), "DVC cache", str(cache) if cache.is_dir() else "empty", "runs that are not repeated")
    if (home / "dvc.yaml").is_file():
        yield from _stages(home)


def _stages(home: Path) -> Iterator[Finding]:
    """Whether each stage is up to date."""
    import yaml

    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=home, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Finding("optional", "dvc status", reason, "which stages will run")
        return
    changed = yaml.safe_load(done.stdout) or {}
    for stage in yaml.safe_load((home / "dvc.yaml").read_text(encoding="utf-8"))["stages"]:
        yield useful(stage not in changed, f"stage {stage}", _state(stage in changed), "dvc repro")


def _state(changed: bool) -> str:
    return "will run" if changed else "up to date"
