"""What this machine can run and what it lacks, as a list of findings."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from r1pipe.errors import MissingError, R1Error
from r1pipe.metrics.meteor import find_jar
from r1pipe.metrics.wordnet import find_lemma
from r1pipe.params import Params

GIB = 1024**3
MIN_MEMORY_GIB = 6.0
MIN_DISK_GIB = 5.0
"""What the tiny scale writes to data/, models/, .work/ and the cache, with room to spare."""

SCALES = ("tiny", "small", "paper")
DATA = ("procedural", "scannet")
State = Literal["ok", "missing", "optional"]


class Finding(NamedTuple):
    """One thing that the pipeline may need."""

    state: State
    """`missing` where the tiny scale cannot run without it."""

    what: str
    found: str
    purpose: str


def examine(home: Path) -> list[Finding]:
    """Everything worth knowing before a run from the folder `home`; no secret's value is among it."""
    return [*_machine(home), *_packages(), *_tools(), *_repository(home)]


def _needed(holds: bool, what: str, found: str, purpose: str) -> Finding:
    return Finding("ok" if holds else "missing", what, found, purpose)


def _useful(holds: bool, what: str, found: str, purpose: str) -> Finding:
    return Finding("ok" if holds else "optional", what, found, purpose)


def _machine(home: Path) -> Iterator[Finding]:
    version = platform.python_version()
    yield _needed(sys.version_info[:2] == (3, 11), "python", version, "3.11: the last with wheels of spconv")
    cores = len(os.sched_getaffinity(0))
    yield _needed(cores >= 1, "cores", str(cores), "two finish the tiny scale in 15 minutes")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield _needed(memory >= MIN_MEMORY_GIB, "memory", f"{memory:.1f} GiB", f"{MIN_MEMORY_GIB:g} GiB for tiny")
    disk = shutil.disk_usage(home).free / GIB
    yield _needed(disk >= MIN_DISK_GIB, "free disk", f"{disk:.1f} GiB", f"{MIN_DISK_GIB:g} GiB for tiny")


def _packages() -> Iterator[Finding]:
    # Importing is the test: a package can be installed and not load.
    torch = _python("import torch; print(torch.__version__)")
    yield _needed(torch is not None, "torch", torch or "does not import", "every model")
    gpu = _python("import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')")
    yield _useful(bool(gpu), "CUDA", gpu or "no device", "scales small and paper")
    spconv = _python("import spconv.pytorch, spconv; print(spconv.__version__)")
    yield _needed(spconv is not None, "spconv", spconv or "does not import", "the point encoder")
    for name, purpose in (("trl", "training"), ("dvc", "the pipeline"), ("bentoml", "serving")):
        version = _installed(name)
        yield _needed(version is not None, name, version or "not installed", purpose)


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
    yield _needed(git is not None, "git", git or "not on the path", "DVC, and the commit beside every number")
    yield _scorer("METEOR", find_jar, "`r1pipe score` with it")
    yield _scorer("WordNet", find_lemma, "ScanQA's F-value in `r1pipe score`")
    key = "set" if os.environ.get("GEMINI_API_KEY") else "not set"
    yield _useful(key == "set", "GEMINI_API_KEY", key, "the teacher `gemini`; `scripted` needs none")


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
    yield _needed(True, "params.yaml", profile(home), "every stage")
    scannet = params.paths.scannet
    found = "null" if scannet is None else f"{scannet}{'' if scannet.is_dir() else ', no such folder'}"
    yield _useful(scannet is not None and scannet.is_dir(), "paths.scannet", found, "real scans; procedural needs none")
    cache = home / ".dvc" / "cache"
    yield _useful(cache.is_dir(), "DVC cache", str(cache) if cache.is_dir() else "empty", "runs that are not repeated")
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
        yield _useful(stage not in changed, f"stage {stage}", _state(stage in changed), "dvc repro")


def _state(changed: bool) -> str:
    return "will run" if changed else "up to date"


def profile(home: Path) -> str:
    """Which composition of `conf/` the parameters are, as `scale=tiny, data=procedural`, or that they are edited."""
    import yaml
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    conf = (home / "conf").resolve()
    if not (conf / "config.yaml").is_file():
        return "found, but no conf/ to compare it with"
    found = yaml.safe_load((home / "params.yaml").read_text(encoding="utf-8"))
    with initialize_config_dir(str(conf), version_base=None):
        for scale in SCALES:
            for data in DATA:
                composed = compose("config", overrides=[f"scale={scale}", f"data={data}"])
                if OmegaConf.to_container(composed, resolve=True) == found:
                    return f"scale={scale}, data={data}"
    return "edited: none of conf/'s compositions"
