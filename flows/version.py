"""What a run is a run of: commit, parameters and data, short enough for a tag."""

import hashlib
import json
import subprocess
from pathlib import Path

import yaml
from prefect import get_client
from prefect.runtime import flow_run

from flows.checkout import read_lock


def commit(root: Path = Path()) -> str:
    """The hash that is checked out."""
    return _git(root, "rev-parse", "HEAD")


def version(root: Path = Path()) -> str:
    """The commit, `+dirty` where tracked files differ from it; dvc.lock is what runs write."""
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock")
    return commit(root) + "+dirty" * bool(changed)


def tags(root: Path = Path()) -> list[str]:
    """`commit:`, `params:` and, once stage `collect` has run, `data:`, eight digits each."""
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    manifests = [
        out["md5"]
        for entry in read_lock(root, ["collect"]).values()
        for out in entry["outs"]
        if out["path"] == values["paths"]["manifest"]
    ]
    return [f"commit:{commit(root)[:8]}", f"params:{params[:8]}", *(f"data:{md5[:8]}" for md5 in manifests)]


def tag_run(extra: list[str]) -> None:
    """Put the tags of the working directory on this flow run."""
    with get_client(sync_client=True) as client:
        kept = [tag for tag in client.read_flow_run(flow_run.id).tags if not tag.startswith(("params:", "data:"))]
        client.update_flow_run(flow_run.id, tags=list(dict.fromkeys([*kept, *tags(), *extra])))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
