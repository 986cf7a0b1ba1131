"""What a run is a run of: commit, parameters and data, short enough for a tag."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml
from prefect import get_client
from prefect.runtime import flow_run

from flows.checkout import read_lock


def commit(root: Path = Path()) -> str:
    """The hash that is checked out."""
    return git("rev-parse", "HEAD", root=root)


def version(root: Path = Path()) -> str:
    """The commit, `+dirty` where tracked files differ from it; dvc.lock is what runs write."""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock", root=root)
    return commit(root) + "+dirty" * bool(changed)


def tags(root: Path = Path()) -> list[str]:
    """Eight digits each of commit, parameters and the data's manifest; `data:none` before stage `collect` has run."""
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    data = {out["path"]: out["md5"] for row in read_lock(root, ["collect"]).values() for out in row["outs"]}
    manifest = data.get(values["paths"]["manifest"], "none")
    return [f"commit:{commit(root)[:8]}", f"params:{params[:8]}", f"data:{manifest[:8]}"]


def tag_run(extra: list[str]) -> None:
    """Put the tags of the working directory on this flow run."""
    with get_client(sync_client=True) as client:
        kept = [
            tag for tag in client.read_flow_run(flow_run.id).tags if not tag.startswith(("commit:", "params:", "data:"))
        ]
        client.update_flow_run(flow_run.id, tags=list(dict.fromkeys([*kept, *tags(), *extra])))


def git(*arguments: str, root: Path = Path(), environ: Mapping[str, str] | None = None) -> str:
    """What git prints."""
    command = ["git", "-C", str(root), *arguments]
    environment = os.environ | dict(environ or {})
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()
