"""A repository whose stages take a second each, with everything else real: git, DVC, a remote, Prefect.

As a program it is one of those stages: `python tiny_flows.py sft`.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml

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
    "report": {"worker": "cpu", "deps": ["${paths.metrics}/sft.json"], "outs": ["${paths.report}"]},
}
"""Of what each reads, `report` beside `grpo`."""


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
    "control": {"batch_size": 32},
    "evaluate": {"bootstrap": 50, "num_samples": 20, "reward_completions": 2},
    "package": {"num_rooms": 2},
}
"""The profile `tiny` with few rooms and steps: what it learns is nothing, what it runs is everything."""


def write_repository(folder: Path, *, sleep_s: float = 0.0, light: bool = True) -> Path:
    """A copy of the working tree, committed; with these stages, or with the real ones on few rooms and steps."""
    folder.mkdir(exist_ok=True)
    tracked = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    merge(params, {"flows": {"network_wait_s": 0.5}} | ({} if light else FEW))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if light:
        shutil.copy(__file__, folder / "tiny_flows.py")
        stages = {name: node(name) for name in STAGES}
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "speed.txt").write_text(str(sleep_s))
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "tiny")
    return folder


def merge(values: dict, others: dict) -> None:
    """Put other values into a nested dictionary."""
    for key, value in others.items():
        if isinstance(value, dict):
            merge(values[key], value)
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


def main(name: str) -> None:
    """Write the stage's outputs; `sft` keeps every step that it has done, and fails where its parameters say so."""
    from r1pipe.errors import GateError
    from r1pipe.files import write_json, write_text
    from r1pipe.params import Params
    from r1pipe.stages.work import in_progress

    params = Params.load()
    paths = params.paths
    if name == "sft":
        if params.sft.max_steps == 13:
            raise GateError("Expected another number of steps than 13, found 13 in sft.max_steps.")
        with in_progress("sft", [params.sft], [paths.samples]) as work:
            done = len(list(work.iterdir()))
            sys.stderr.write(f"sft: going on from step {done} of {STEPS}\n")
            for step in range(done + 1, STEPS + 1):
                time.sleep(float(Path("speed.txt").read_text()))
                (work / f"{step}").touch()
                sys.stderr.write(f"sft: step {step} of {STEPS}\n")
            write_text(paths.sft / "model.txt", f"{STEPS} steps\n")
            write_json(paths.metrics / "sft.json", {"loss": 1 / params.sft.max_steps})
        return
    for out in STAGES[name]["outs"]:
        write_text(getattr(paths, out.removeprefix("${paths.").removesuffix("}")), f"{name} has run\n")


if __name__ == "__main__":
    from r1pipe.errors import R1Error

    try:
        main(sys.argv[1])
    except R1Error as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
