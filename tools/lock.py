"""Resolve `pyproject.toml` into `requirements.lock`, every file by its hash: `make lock`."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

LOCK, PROJECT = Path("requirements.lock"), Path("pyproject.toml")
EXTRA = "dev"
"""What is locked beside the dependencies: what `make test` needs."""


def fingerprint(project: Path = PROJECT) -> str:
    """The SHA-256 of what a lock answers to: the requirements and the Python version."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    wanted = [table["requires-python"], *sorted(table["dependencies"])]
    wanted += [EXTRA, *sorted(table["optional-dependencies"][EXTRA])]
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def main() -> None:
    """Write the lock, headed by the fingerprint of what it was made from."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "pyproject.toml", f"--extra={EXTRA}", "--python-version=3.11"]
    options = ["--generate-hashes", "--no-header", "--no-annotate", "--quiet", "--upgrade"]
    locked = subprocess.run([*command, *options], check=True, capture_output=True, text=True).stdout
    LOCK.write_text(f"# Made by `make lock` from pyproject.toml; its requirements: {fingerprint()}\n{locked}")


if __name__ == "__main__":
    main()
