"""What one profile asks of this machine: weights, data, memory, processes."""

import os
from collections.abc import Iterator
from pathlib import Path

from r1pipe.doctor.findings import GIB, Finding, needed, useful
from r1pipe.doctor.machine import Hardware
from r1pipe.doctor.parts import plan
from r1pipe.doctor.weights import examine_weights
from r1pipe.params import Params

SCANNET_FOLDERS = ("scans", "meta", "annotations")


def examine_profile(params: Params, hardware: Hardware, home: Path) -> list[Finding]:
    """All that a run of these parameters from the folder `home` needs; no network is asked."""
    return [
        *examine_weights(params, home),
        *_data(params, home),
        *_teacher(params, home),
        *_processes(params, hardware, home),
        _memory(params, hardware, home),
    ]


def _data(params: Params, home: Path) -> Iterator[Finding]:
    rooms, scannet = params.collect.rooms.model_dump(), params.paths.scannet
    if any(rooms.values()):
        found = ", ".join(f"{count} {split}" for split, count in rooms.items())
        yield needed(True, "procedural rooms", found, "made here")
    if scannet is not None:
        lacking = [folder for folder in SCANNET_FOLDERS if not (home / scannet / folder).is_dir()]
        found = f"{scannet}{': no ' * bool(lacking)}{', '.join(lacking)}"
        yield needed(not lacking, "paths.scannet", found, "real scans: -S paths.scannet=/path/to/scannet")
    elif not any(rooms.values()):
        helps = "-S data=scannet -S paths.scannet=/path/to/scannet"
        yield needed(False, "scans", "no procedural rooms, and paths.scannet null", helps)
    masks = params.encode.proposals
    if masks is not None:
        yield needed((home / masks).is_dir(), "encode.proposals", str(masks), "masks made elsewhere")


def _teacher(params: Params, home: Path) -> Iterator[Finding]:
    section = params.synthesize
    if section.teacher == "gemini":
        names = ("GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI")
        found = next((name for name in names if os.environ.get(name)), None)
        helps = "or -S synthesize.teacher=scripted; `r1pipe synthesize --dry-run` has the price"
        yield needed(found is not None, names[0], f"{found} set" if found else "not set", helps)
    if section.teacher == "replay":
        path = home / str(section.replay)
        yield needed(path.is_file(), "synthesize.replay", str(section.replay), "what the teacher repeats")


def _processes(params: Params, hardware: Hardware, home: Path) -> Iterator[Finding]:
    launch, gpus = params.launch, len(hardware.gpus)
    found = f"{gpus or 'none'} for {launch.processes} {'process' if launch.processes == 1 else 'processes'}"
    if gpus == 0:
        yield useful(False, "GPUs", found, "without one the language model trains on the CPU")
    elif gpus > launch.processes:
        yield needed(True, "GPUs", found, f"-S launch.processes={gpus} uses all")
    else:
        yield needed(gpus == launch.processes, "GPUs", found, "launch.processes: each has a GPU of its own")
    if launch.processes > 1:
        path = launch.accelerate
        yield needed((home / path).is_file(), "launch.accelerate", str(path), "how the processes share the model")


def _memory(params: Params, hardware: Hardware, home: Path) -> Finding:
    """The larger of both trainings against a GPU, or against what the processes share."""
    plans = [plan(params, training, home) for training in (params.sft, params.grpo)]
    largest = max(plans, key=lambda plan: plan.frozen_bytes + plan.trained_bytes)
    each = largest.frozen_bytes + largest.trained_bytes
    room = min(hardware.gpus) if hardware.gpus else hardware.memory
    together = 1 if hardware.gpus else params.launch.processes
    found = f"{_gib(each)} a process, of {_gib(room)} {'of a GPU' if hardware.gpus else 'in all'}"
    parts = f"frozen {_gib(largest.frozen_bytes)}, trained with gradients and Adam {_gib(largest.trained_bytes)}"
    return needed(each * together <= room, "memory", found, f"{parts}; activations come on top")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size < GIB else f"{size / GIB:.1f} GiB"
