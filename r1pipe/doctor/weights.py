"""Which pretrained weights a profile asks for, and whether they are on this disk; the network is never asked."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from r1pipe.doctor.findings import Finding, needed
from r1pipe.files import read_json
from r1pipe.params import Params
from r1pipe.params.encoders import ClipBackbone, Tower

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
FETCHED = Path("pretrained")
"""Where `make pretrained` puts what it fetches."""

FindFile = Callable[[str], Path | None]


def examine_weights(params: Params, home: Path) -> Iterator[Finding]:
    """The language model and the four encoders: trained here, there, or missing with what helps."""
    model, backbones = params.model, params.backbones
    if model.language is None:
        yield needed(True, "language model", "trained here from scratch", "sft")
    else:
        yield _checkpoint("language model", model.language, model.revision, home, "tokenizer_config.json")
    yield _clip(backbones.clip, home)
    yield _tower("SigLIP-2", backbones.image, home)
    yield _tower("Depth-Anything", backbones.depth, home)
    if backbones.points.source == "train":
        yield needed(True, "Point Transformer v3", "trained here", "backbones")
    else:
        folder = home / str(backbones.points.weights)
        found = f"{backbones.points.weights}{'' if folder.is_dir() else ', no such folder'}"
        yield needed(
            folder.is_dir(), "Point Transformer v3", found, "a folder `models/backbones/points` of another run"
        )


def is_local(name: str, revision: str | None, home: Path) -> bool:
    """Whether a name is a path; a hub id, which may look like one, has a revision."""
    return revision is None or (home / name).is_dir() or Path(name).is_absolute()


def find_file(name: str, revision: str | None, file: str, home: Path) -> Path | None:
    """A file of a checkpoint, in its folder or in the Hugging Face cache; None where it is not on this disk."""
    if is_local(name, revision, home):
        path = home / name / file
        return path if path.is_file() else None
    return _in_cache(name, file, revision)


def _in_cache(name: str, file: str, revision: str | None = None) -> Path | None:
    try:
        cached = try_to_load_from_cache(name, file, revision=revision)
    except HFValidationError:  # a path in the place of a hub id
        return None
    return Path(cached) if isinstance(cached, str) else None


def _tower(what: str, section: Tower, home: Path) -> Finding:
    if section.source == "train":
        return needed(True, what, "trained here", "backbones")
    return _checkpoint(what, str(section.model), section.revision, home, "preprocessor_config.json")


def _checkpoint(what: str, name: str, revision: str | None, home: Path, *beside: str) -> Finding:
    """A checkpoint of transformers; `beside` its weights it needs these files too."""
    lacking = _lacking(lambda file: find_file(name, revision, file, home), ["config.json", *beside])
    if is_local(name, revision, home):
        found = name if (home / name).is_dir() else f"{name}, no such folder"
        fetches = FETCHED in Path(name).parents
        helps = "`make pretrained` fetches it" if fetches else "a folder that `save_pretrained` of transformers wrote"
    else:
        found = f"{name} at {revision}, in the Hugging Face cache"
        helps = f"`hf download {name} --revision {revision}`, or the run fetches it"
    if lacking is None:
        return needed(True, what, found, "loaded")
    return needed(False, what, f"{found}: no {lacking}", helps)


def _lacking(find: FindFile, files: list[str]) -> str | None:
    """The first file that a checkpoint lacks, of these and its weights."""
    for file in files:
        if find(file) is None:
            return file
    if any(find(file) for file in WEIGHTS):
        return None
    for index in map(find, (f"{file}.index.json" for file in WEIGHTS)):
        if index is not None:
            parts = sorted(set(read_json(index)["weight_map"].values()))
            return next((part for part in parts if find(part) is None), None)
    return WEIGHTS[0]


def _clip(section: ClipBackbone, home: Path) -> Finding:
    """Weights by open_clip's names, from where open_clip would take them."""
    if section.source == "train":
        return needed(True, "CLIP", "trained here", "backbones")
    model, pretrained = str(section.model), section.pretrained
    if model.startswith("local-dir:"):
        folder = home / model.removeprefix("local-dir:")
        return needed((folder / "open_clip_config.json").is_file(), "CLIP", model, "a folder in open_clip's format")
    if model.startswith("hf-hub:"):
        return _clip_of_hub(model, model.removeprefix("hf-hub:"), "")
    if pretrained and (home / pretrained).is_file():
        return needed(True, "CLIP", f"{model} from {pretrained}", "loaded")
    return _clip_by_tag(model, pretrained)


def _clip_by_tag(model: str, pretrained: str | None) -> Finding:
    import open_clip

    name = f"{model} ({pretrained})"
    tag = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else None
    if not tag:
        return needed(
            False, "CLIP", f"{name}: open_clip knows no such weights", "`open_clip.list_pretrained()` has all"
        )
    if tag.get("hf_hub"):
        return _clip_of_hub(name, *os.path.split(tag["hf_hub"]))
    path = Path("~/.cache/clip").expanduser() / Path(tag["url"]).name
    return needed(path.is_file(), "CLIP", f"{name}, {path}", "loaded; where it is not there, the run fetches it")


def _clip_of_hub(name: str, repository: str, file: str) -> Finding:
    """A CLIP of the hub; `file` is empty where it has open_clip's own name."""
    files = CLIP_WEIGHTS if file in ("", *CLIP_WEIGHTS) else (file, f"{Path(file).stem}.safetensors")
    found = f"{name}, {repository} in the Hugging Face cache"
    if any(_in_cache(repository, file) for file in files):
        return needed(True, "CLIP", found, "loaded")
    return needed(
        False, "CLIP", f"{found}: no {files[0]}", f"`hf download {repository} {files[0]}`, or the run fetches it"
    )
