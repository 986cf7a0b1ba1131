"""One question from the command line: the same model, the same views and the same answer as over HTTP."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import MissingError
from r1pipe.params import Params
from r1pipe.serving.answer import Answer, Ask
from r1pipe.serving.scans import FORMATS, is_scan, read_scan
from r1pipe.serving.served import ServedModel, Settings, load_encoders
from r1pipe.views.choice import ViewChoice

PHOTOGRAPH = (440, 440)
"""Pixels of a view to look at, width and height: twice what a sheet shows, so that its points are smooth."""


class Look(NamedTuple):
    """What the model looks at for a question."""

    ask: Ask
    """The question, as it was understood."""

    model: str
    choices: list[ViewChoice]
    photographs: NDArray[np.uint8]
    """`(V, H, W, 3)`, one a choice."""


def ask_scene(
    params: Params, scene: str, question: str, *, task: str, model: Path | None = None, scannet: Path | None = None
) -> Answer:
    """Ask the repository's model about an encoded room, a ScanNet scan or a file.

    Args:
        params: the run's parameters; its paths say where model, encoders and rooms are.
        scene: an id of `paths.features`, the id of a scan below `scannet`, or a path of a file of `scans.FORMATS`.
        question: it may name detected objects, `<obj_003>`.
        task: one of `params.Task`.
        model: a tuned model, instead of `paths.grpo`.
        scannet: a directory in ScanNet's layout, instead of `paths.scannet`.

    Raises:
        MissingError: if there is no such room, scan or file, or no model yet.
        DataError: if the scan or the question is not what it should be.
    """
    served, ask = _attend(params, scene, question, task=task, model=model, scannet=scannet)
    return served.answer(ask)


def look_scene(
    params: Params, scene: str, question: str, *, task: str, model: Path | None = None, scannet: Path | None = None
) -> Look:
    """What the model looks at for a question, without its answer; arguments and errors as in `ask_scene`."""
    served, ask = _attend(params, scene, question, task=task, model=model, scannet=scannet)
    choices = served.look(ask)
    photographs = served.room(ask.scene_id).photographs([choice.view for choice in choices], PHOTOGRAPH)
    return Look(ask, served.name, choices, photographs)


def _attend(
    params: Params, scene: str, question: str, *, task: str, model: Path | None, scannet: Path | None
) -> tuple[ServedModel, Ask]:
    """The model that knows the room, and the question about it."""
    ask = Ask.read({"scene_id": scene, "question": question.strip(), "task": task})
    scan = find_scan(scene, params.paths.features, scannet or params.paths.scannet)
    served = load(params, model or params.paths.grpo)
    if scan is not None:
        read = read_scan(scan, voxel_size=params.prepare.voxel_size)
        ask = ask.model_copy(update={"scene_id": served.add_scene(read)})
    return served, ask


def find_scan(scene: str, features: Path, scannet: Path | None) -> Path | None:
    """The file or scan folder that `scene` names, or None where it is already encoded.

    Raises:
        MissingError: if it is neither.
    """
    if is_scan(scene):
        return Path(scene)
    if Path(scene).name == scene and (features / f"{scene}.safetensors").is_file():
        return None
    if scannet is not None and Path(scene).name == scene and (scannet / "scans" / scene).is_dir():
        return scannet / "scans" / scene
    places = f"{features}" if scannet is None else f"{features} or {scannet / 'scans'}"
    raise MissingError(f"Expected a room of {places}, or a file {', '.join(FORMATS)}, found {scene!r}.")


def load(params: Params, model: Path) -> ServedModel:
    """The repository's model.

    Raises:
        MissingError: if it was not trained yet.
    """
    for folder in (model, params.paths.backbones):
        if not folder.is_dir():
            raise MissingError(f"Expected a model at {folder}, found none; `r1pipe run` trains it.")
    from r1pipe.models.r1.answering import Answerer

    return ServedModel(
        Answerer.load(model, features=params.paths.features, backbones=params.paths.backbones),
        Settings.of(params),
        name=str(model),
        lineage={},
        scenes=params.paths.scenes,
        views=params.paths.views,
        encoders=lambda: load_encoders(params.paths.backbones, params.encode),
    )
