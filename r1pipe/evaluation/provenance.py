"""What the numbers rest on: protocols, seed, code, packages, and the hashes of models and data."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from r1pipe.evaluation.protocols import ScoreTask, protocol
from r1pipe.evaluation.scoring import NO_METEOR
from r1pipe.files import sha256
from r1pipe.params.evaluation import Evaluate

RESAMPLING = (
    "95 % percentile bootstrap over samples; BLEU is recomputed on each resample, CIDEr is the mean of per-sample "
    "scores whose document frequencies stay those of all references"
)

PACKAGES = (
    "torch", "transformers", "trl", "peft", "accelerate", "open_clip_torch", "spconv-cu120", "numpy", "numba", "dvc",
)  # fmt: skip
"""Those whose version can change a number."""


def provenance(
    tasks: Sequence[ScoreTask],
    models: Mapping[str, Path],
    samples: Path,
    settings: Evaluate,
    seed: int,
    *,
    temperature: float,
) -> dict[str, Any]:
    """Protocol a task, seed, split, resampling, processor, and SHA-256 of each arm's weights and of the samples.

    Raises:
        FileNotFoundError: if a file to be hashed is not there.
    """
    import torch  # the report reads what this has written, and starts without it

    cpu = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
    rules = {task: protocol(task, None) for task in tasks}
    protocols: dict[str, dict[str, str]] = {
        task: {"name": found.name, "rules": found.rules} for task, found in rules.items()
    }
    protocols["reward"] = {
        "name": "grpo",
        "rules": f"GRPO's weighted rewards, mean of {settings.reward_completions} completions a question sampled at temperature {temperature:g}, "
        f"{settings.reward_samples or 'all'} questions a task",
    }
    return {
        "protocols": protocols,
        "seed": seed,
        "split": settings.split,
        "num_samples": settings.num_samples,
        "intervals": {"method": RESAMPLING, "resamples": settings.bootstrap},
        # Matrix products round as its instructions do: another one, another number.
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
        "models": {name: _weights(folder) for name, folder in models.items()},
        "data": {"samples": samples.name, "sha256": sha256(samples)},
        "absent": {"meteor": NO_METEOR},
    }


def _weights(folder: Path) -> dict[str, str]:
    """The SHA-256 of a model's weights, and of its adapters, which alone tell two arms apart where there are any."""
    adapter = folder / "adapter" / "adapter_model.safetensors"
    found = {"sha256": sha256(folder / "model.safetensors")}
    return found | ({"adapter": sha256(adapter)} if adapter.is_file() else {})


def lineage(
    params: Mapping[str, Any], files: Mapping[str, Path], commit: str | None, changed: Sequence[str]
) -> dict[str, Any]:
    """Commit, and SHA-256 of the parameters and of files, with the versions of Python and of the packages.

    Args:
        params: every parameter; hashed as JSON with sorted keys, so that comments and layout do not count.
        files: what is hashed, by what it is called.
        commit: the last one that changed code or parameters.
        changed: code that is not as in that commit.
    """
    values = json.dumps(params, sort_keys=True)
    return {
        "commit": commit or "none: not a git repository",
        "not committed": list(changed) or "nothing",
        "parameters": {"sha256": hashlib.sha256(values.encode()).hexdigest()},
        **{name: {"sha256": sha256(path)} for name, path in files.items()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
