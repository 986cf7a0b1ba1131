"""Where a packaged model comes from: its lineage as JSON, and its card as Markdown."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from r1pipe.files import read_json, sha256
from r1pipe.params import Params

CODE = ("r1pipe", "params.yaml", "dvc.yaml", "requirements.lock")


def lineage(params: Params, *, home: Path, version: str) -> dict[str, Any]:
    """What a package was made from, the same for the same inputs: no clock, no machine.

    Args:
        params: the parameters of the run.
        home: the repository.
        version: the hash of the packaged files.
    """
    return {
        "name": params.package.name,
        "version": version,
        "commit": last_commit(home),
        "model": {str(path.relative_to(params.paths.grpo)): sha256(path) for path in files(params.paths.grpo)},
        "stages": stages(home / "dvc.lock", but=params.paths.bento),
        "metrics": read_json(params.paths.metrics / "evaluate.json"),
        "data": "procedural" if params.paths.scannet is None else "scannet",
        # Where things lay on the machine that made them is not what they were made from.
        "params": params.model_dump(mode="json", by_alias=True, exclude={"paths"}),
    }


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
    hashes = {
        stage: {row["path"]: row["md5"] for kind in ("deps", "outs") for row in entry.get(kind, []) if "md5" in row}
        for stage, entry in sorted(locked.items())
    }
    return {stage: rows for stage, rows in hashes.items() if str(but) not in rows}


def card(lineage: dict[str, Any]) -> str:
    """The model card."""
    params = lineage["params"]
    tasks = sorted({*params["sft"]["tasks"], *params["grpo"]["tasks"]})
    thinking = [task for task in tasks if params["think"][task]]
    language = params["model"]["language"] or "built from scratch"
    return _CARD.format(
        name=lineage["name"],
        version=lineage["version"],
        tasks=", ".join(tasks),
        thinking=", ".join(thinking) or "none of them",
        language=language,
        data=_DATA[lineage["data"]],
        commit=lineage["commit"] or "not from a git repository",
        seed=params["base"]["seed"],
        results=results(lineage["metrics"]),
        steps=f"{params['sft']['max_steps']} steps of SFT, then {params['grpo']['max_steps']} of GRPO",
    )


def results(metrics: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """A Markdown table of the scores, one column an arm; 0 to 100, with the 95 % interval."""
    arms = list(metrics)
    keys = sorted({(task, metric) for tasks in metrics.values() for task in tasks for metric in tasks[task]})
    lines = [f"| task | metric | {' | '.join(arms)} |", "|---" * (len(arms) + 2) + "|"]
    for task, metric in keys:
        cells = [_cell(metrics[arm].get(task, {}).get(metric)) for arm in arms]
        lines.append(f"| {task} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(score: dict[str, float] | None) -> str:
    return "" if score is None else f"{score['value']:.1f} ({score['low']:.1f} to {score['high']:.1f})"


_DATA = {"procedural": "procedural rooms, made by this pipeline", "scannet": "ScanNet scans"}
_CARD = """# {name}:{version}

A vision-language model that reads a scanned room and answers questions about it. It sees the room as detected objects,
pooled point features and the views that it selects for the question, and points at things by their identifiers.

## Ask it

    bentoml serve
    curl -s localhost:3000/scenes
    curl -s localhost:3000/answer -H 'content-type: application/json' \\
      -d '{{"scene_id": "<one of /scenes>", "question": "what color is the chair?"}}'
    curl -s localhost:3000/answer -F scene=@room.ply -F question='how many chairs are in the room?'

The page is at `/ui`, what made the model at `/model`.

## What it was made from

- Language model: {language}; {steps}; seed {seed}.
- Data: {data}.
- Tasks: {tasks}. It reasons before it answers in: {thinking}.
- Code: {commit}. Hashes of every input and output: `lineage.json`.

## Results

0 to 100, with the 95 % bootstrap interval. `blind` is the same model without the scene, `control` is SFT continued for
GRPO's steps.

{results}

## Limits

- It was measured on rooms like those it was trained on; other scans, other scanners and other questions may go wrong
  without a sign.
- Boxes come from its own detector; what the detector misses cannot be answered about. A scan must be in metres, z up.
- The reasoning is text that the model generated: it can be wrong where the answer is right, and the other way round.
- It must not be used where a wrong answer can hurt somebody.
"""
