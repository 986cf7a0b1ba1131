"""Where a packaged model comes from: commit, data, parameters and the hash of every weight."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from r1pipe.files import read_json, read_jsonl, sha256
from r1pipe.params import Params

CODE = ("r1pipe", "params.yaml", "dvc.yaml", "requirements.lock")


def lineage(params: Params, *, home: Path, version: str, scene_ids: Sequence[str]) -> dict[str, Any]:
    """What a package was made from, the same for the same inputs: no clock, no machine.

    Args:
        params: the parameters of the run.
        home: the repository.
        version: the hash of the packaged files.
        scene_ids: the rooms that are packaged.

    Raises:
        MissingError: if the run has no training samples or no metrics.
    """
    paths = params.paths
    return {
        "name": params.package.name,
        "version": version,
        "commit": last_commit(home),
        "data": {
            "kind": "procedural" if paths.scannet is None else "scannet",
            "sources": sources(paths.samples / "train.jsonl", {*params.sft.tasks, *params.grpo.tasks}),
            "samples": hashes(paths.samples),
            "scenes": list(scene_ids),
        },
        "model": hashes(paths.grpo),
        "backbones": hashes(paths.backbones),
        "stages": stages(home / "dvc.lock", but=paths.bento),
        "metrics": read_json(paths.metrics / "evaluate.json"),
        "provenance": read_json(paths.metrics / "provenance.json"),
        "params": params.values(),
    }


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path in it."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files(folder)}


def sources(samples: Path, tasks: Collection[str]) -> dict[str, int]:
    """How many samples of these tasks each source has."""
    counts = Counter(row["source"] for row in read_jsonl(samples) if row["task"] in tasks)
    return dict(sorted(counts.items()))


def files(folder: Path) -> list[Path]:
    """Every file below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def last_commit(home: Path) -> str | None:
    """The last commit that changed code or parameters; None outside a git repository.

    Not the last of all: committing a run's results must not change what the run makes.
    """
    return _git(home, "log", "-1", "--format=%H").strip() or None


def changed_files(home: Path) -> list[str]:
    """Code and parameters that differ from the last commit; none outside a git repository."""
    return [line[3:] for line in _git(home, "status", "--porcelain").splitlines()]


def _git(home: Path, *command: str) -> str:
    """What git says about code and parameters; nothing where there is no git, or no repository."""
    git = shutil.which("git")
    if git is None:
        return ""
    return subprocess.run(
        [git, "-C", str(home), *command, "--", *CODE], capture_output=True, text=True, check=False
    ).stdout


def stages(lock: Path, *, but: Path) -> dict[str, dict[str, str]]:
    """The hash of each input and output of every stage that DVC has locked, except the one that makes `but`."""
    if not lock.is_file():
        return {}
    locked = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
    found = {
        stage: {row["path"]: row["md5"] for kind in ("deps", "outs") for row in entry.get(kind, []) if "md5" in row}
        for stage, entry in sorted(locked.items())
    }
    return {stage: rows for stage, rows in found.items() if str(but) not in rows}
