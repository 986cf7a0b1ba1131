"""A Bento of the tuned model with all it needs to answer: the same bytes for the same content.

`bentoml build` runs on a folder that holds just the packaged files, with a store of its own; then what depends on the
clock is fixed, and the archive is written in a fixed order.
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from r1pipe.errors import DataError, MissingError
from r1pipe.files import sha256, whole, write_json, write_text
from r1pipe.params import Params
from r1pipe.serving.bundle import LINEAGE, Bundle
from r1pipe.serving.card import card
from r1pipe.serving.lineage import files, lineage

logger = logging.getLogger(__name__)

_CREATED = re.compile(r"^creation_time: .*$", re.MULTILINE)
_EPOCH = "creation_time: '1970-01-01T00:00:00+00:00'"


def package(params: Params, scene_ids: Sequence[str], *, home: Path) -> None:
    """Build the Bento and write it to `params.paths.bento`, whole.

    Args:
        params: the run's parameters; its paths say what goes in.
        scene_ids: the rooms that go in.
        home: the repository.

    Raises:
        MissingError: if a file that goes in is not there.
        DataError: if BentoML refuses the package; the sentence holds its last line.
    """
    # Not below `.work`: BentoML refuses to read files in a hidden folder.
    with tempfile.TemporaryDirectory(prefix="r1-package-") as work:
        context = Bundle(Path(work) / "context")
        _gather(params, scene_ids, context, home)
        version = content_hash(context.root)
        facts = lineage(params, home=home, version=version, scene_ids=scene_ids)
        write_json(context.root / LINEAGE, facts)
        write_text(context.card, card(facts))
        bento = build(context.root, params.package.name, version, store=Path(work) / "bentoml")
        write_archive(bento, params.paths.bento)
    logger.info("packaged %s:%s with %d rooms in %s", params.package.name, version, len(scene_ids), params.paths.bento)


def _gather(params: Params, scene_ids: Sequence[str], context: Bundle, home: Path) -> None:
    """Copy what is served to where a bundle has it."""
    paths = params.paths
    _copy(home / "r1pipe", context.root / "r1pipe")
    for name in ("params.yaml", "requirements.lock", "bentofile.yaml", "LICENSE"):
        _copy(home / name, context.root / name)
    _copy_model(paths.grpo, context.model, merge_adapters=params.package.merge_adapters)
    _copy(paths.backbones, context.backbones)
    _copy(paths.report, context.report)
    # What lies beside the rooms' own files belongs to all of them.
    shared = [path for path in files(paths.features) if path.parent != paths.features or path.suffix != ".safetensors"]
    for path in shared:
        _copy(path, context.features / path.relative_to(paths.features))
    pairs = ((paths.features, context.features), (paths.scenes, context.scenes), (paths.views, context.views))
    for source, target in pairs:
        for scene_id in scene_ids:
            _copy(source / f"{scene_id}.safetensors", target / f"{scene_id}.safetensors")


def _copy_model(source: Path, target: Path, *, merge_adapters: bool) -> None:
    """The model as it was trained, or with its adapters merged; the processor's files are the same."""
    _copy(source, target)
    if merge_adapters:
        from r1pipe.models.r1.weights import ADAPTER, merge

        if (source / ADAPTER).is_dir():
            shutil.rmtree(target / ADAPTER)
            merge(source, target)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    if not source.is_file():
        raise MissingError(f"Expected {source} to package, found none; `make run` makes it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def content_hash(folder: Path) -> str:
    """16 hexadecimal digits over the paths and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def build(context: Path, name: str, version: str, *, store: Path) -> Path:
    """The folder of the Bento `name:version` that BentoML builds from `context` into its own `store`.

    Raises:
        DataError: if BentoML refuses; the sentence holds its last line.
    """
    store.mkdir(parents=True)
    environment = os.environ | {
        "BENTOML_HOME": str(store.resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONDONTWRITEBYTECODE": "1",  # byte code holds times
    }
    command = [sys.executable, "-m", "bentoml", "build", "--name", name, "--version", version, "--output", "tag", "."]
    done = subprocess.run(command, cwd=context, env=environment, capture_output=True, text=True, check=False)
    folder = store / "bentos" / name / version
    if done.returncode != 0 or not folder.is_dir():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise DataError(f"Expected BentoML to build {name}:{version} from {context}, found: {' '.join(last)}.")
    manifest = folder / "bento.yaml"
    write_text(manifest, _CREATED.sub(_EPOCH, manifest.read_text(encoding="utf-8"), count=1))
    return folder


def write_archive(folder: Path, path: Path) -> None:
    """Write a folder as a tar archive whose bytes depend on paths and contents alone."""
    with whole(path) as draft, tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in files(folder):
            entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
            entry.size = file.stat().st_size
            entry.mode = 0o755 if os.access(file, os.X_OK) else 0o644
            with file.open("rb") as content:
                tar.addfile(entry, content)
