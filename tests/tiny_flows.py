"""A repository whose stages take a second each, with everything else real: git, DVC, a remote, Prefect.

As a program it is one of those stages: `python tiny_flows.py sft`.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from r1pipe.params import Params

ROOT = Path(__file__).parents[1]
STEPS = 20
STAGES = {
    "collect": {"worker": "cpu", "outs": ["${paths.manifest}"]},
    "prepare": {"worker": "cpu", "deps": ["${paths.manifest}"], "outs": ["${paths.samples}"]},
    "sft": {
        "worker": "gpu",
        "deps": ["${paths.samples}"],
        "outs": ["${paths.sft}"],
        "metrics": ["${paths.metrics}/sft.json"],
    },
    "grpo": {"worker": "gpu", "deps": ["${paths.sft}"], "outs": ["${paths.grpo}"]},
    "evaluate": {"worker": "gpu", "deps": ["${paths.grpo}"], "outs": ["${paths.predictions}"]},
    "report": {"worker": "cpu", "deps": ["${paths.metrics}/sft.json"], "outs": ["${paths.report}"]},
}
"""Of what each reads, `report` beside `grpo`."""

DATA_STAGES = ("collect", "prepare", "synthesize", "validate")
ARTIFACTS = {"r1": {"path": "${paths.grpo}", "type": "model"}}
QUESTIONS = 200

FEW = {
    "base": {"threads": 1},
    "collect": {"rooms": {"train": 20, "val": 3, "test": 3}, "points_per_m2": 200.0},
    "backbones": {
        "clip": {"steps": 10},
        "image": {"steps": 10},
        "depth": {"steps": 5},
        "points": {"steps": 10},
    },
    "validate": {"probe": {"samples": 200}},
    "sft": {"alignment_steps": 20, "max_steps": 60, "save_steps": 10},
    "grpo": {"max_steps": 4, "batch_size": 32, "eval_prompts": 8},
    "evaluate": {"bootstrap": 50, "num_samples": 20, "reward_completions": 2},
    "package": {"num_rooms": 2},
}
"""The profile `tiny` with few rooms and steps: what it learns is nothing, what it runs is everything."""


def write_repository(folder: Path, *, sleep_s: float = 0.0, real: Collection[str] = ()) -> Path:
    """A copy of the working tree, committed; with these stages, those of `real` as they are, on few rooms and steps."""
    folder.mkdir(exist_ok=True)
    tracked = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    kept = {name: stage for name, stage in pipeline["stages"].items() if name in real}
    if set(kept) != set(pipeline["stages"]):
        shutil.copy(__file__, folder / "tiny_flows.py")
        stages = {name: node(name) for name in STAGES} | kept
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "artifacts": ARTIFACTS}, sort_keys=False))
    (folder / "speed.txt").write_text(str(sleep_s))
    set_params(folder, {"flows": {"network_wait_s": 0.5}} | (FEW if kept else {}))
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "tiny")
    return folder


def set_params(folder: Path, values: dict) -> None:
    """Write them where a run's overrides are composed with them."""
    profile = folder / "conf/scale/tiny.yaml"
    composed = yaml.safe_load(profile.read_text())
    merge(composed, values)
    profile.write_text("# @package _global_\n" + yaml.safe_dump(composed, sort_keys=False))
    subprocess.run([sys.executable, "-m", "tools.compose"], cwd=folder, check=True)


def merge(values: dict, others: dict) -> None:
    """Put other values into a nested dictionary."""
    for key, value in others.items():
        if isinstance(value, dict):
            merge(values.setdefault(key, {}), value)
        else:
            values[key] = value


def node(name: str) -> dict[str, object]:
    given = dict(STAGES[name])
    return {
        "cmd": f"python tiny_flows.py {name}",
        "params": [name],
        "deps": ["tiny_flows.py", *given.get("deps", [])],
        "outs": given["outs"],
        "metrics": given.get("metrics", []),
        "meta": {"worker": given["worker"]},
    }


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", message)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def runs(process: str) -> bool:
    """Whether there is such a process, and not only its entry."""
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def main(name: str) -> None:
    """Write the stage's outputs."""
    from r1pipe.files import write_text
    from r1pipe.params import Params

    params = Params.load()
    paths = params.paths
    if name == "sft":
        train(params)
    elif name == "grpo":
        write_text(paths.grpo / "model.txt", (paths.sft / "model.txt").read_text())
    elif name == "evaluate":
        share = int((paths.grpo / "model.txt").read_text().split()[0]) / 4000
        answer(paths.predictions, share)
        known = yaml.safe_load(Path("dvc.lock").read_text())["stages"]
        write_text(paths.predictions / "lineage.txt", ", ".join(sorted(known.keys() & {"collect", "prepare", "sft"})))
    else:
        for out in STAGES[name]["outs"]:
            write_text(getattr(paths, out.removeprefix("${paths.").removesuffix("}")), f"{name} has run\n")


def train(params: "Params") -> None:
    """Keep every step that is done; fail, or hang with a process of its own, where the parameters say so."""
    from r1pipe.errors import GateError
    from r1pipe.files import write_json, write_text
    from r1pipe.stages.work import in_progress

    if params.sft.max_steps == 13:
        raise GateError("Expected another number of steps than 13, found 13 in sft.max_steps.")
    if params.sft.max_steps == 15:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        sys.stderr.write(f"sft: hangs with {child.pid}\n")
        time.sleep(600)
    with in_progress("sft", [params.sft], [params.paths.samples]) as work:
        done = len(list(work.iterdir()))
        sys.stderr.write(f"sft: going on from step {done} of {STEPS}\n")
        for step in range(done + 1, STEPS + 1):
            time.sleep(float(Path("speed.txt").read_text()))
            (work / f"{step}").touch()
            sys.stderr.write(f"sft: step {step} of {STEPS}\n")
        write_text(params.paths.sft / "model.txt", f"{params.sft.max_steps} steps\n")
        write_json(params.paths.metrics / "sft.json", {"loss": 1 / params.sft.max_steps})


def answer(folder: Path, right: float, *, questions: int = QUESTIONS) -> None:
    """Predictions of which a share is right, always the same questions first."""
    folder.mkdir(parents=True, exist_ok=True)
    boxes = [[float(i), 0.0, 0.5, 1.0, 1.0, 1.0] for i in range(questions)]
    write = lambda name, rows: (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))  # noqa: E731
    write("references-grounding.jsonl", [{"id": f"q{i}", "boxes": [box]} for i, box in enumerate(boxes)])
    chosen = set(random.Random(0).sample(range(questions), int(right * questions)))
    far = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]
    rows = [{"id": f"q{i}", "boxes": [box if i in chosen else far]} for i, box in enumerate(boxes)]
    write("grpo-grounding.jsonl", rows)


if __name__ == "__main__":
    from r1pipe.errors import R1Error

    try:
        main(sys.argv[1])
    except R1Error as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
