"""The sections of a whole run: seed and threads, where things lie, processes, which tasks reason."""

from collections.abc import Sequence
from math import lcm
from pathlib import Path
from typing import Annotated

from pydantic import Field

from r1pipe.params.section import Count, Section, Task


class Base(Section):
    """What every stage shares."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    """CPU threads of torch and numba; part of the parameters because it can change the last bit of a sum."""


class Paths(Section):
    """Where things lie, relative to the repository's root; `dvc.yaml` interpolates these."""

    scannet: Path | None
    """A directory in ScanNet's layout (`scans/`, `meta/`); null for procedural rooms alone."""

    raw: Path
    manifest: Path
    scenes: Path
    samples: Path
    views: Path
    backbones: Path
    features: Path
    drafts: Path
    rejects: Path
    cot: Path
    release: Path
    """The same texts as a dataset for others, with its card."""

    data_docs: Path
    sft: Path
    grpo: Path
    control: Path
    predictions: Path
    metrics: Path
    logs: Path
    ablations: Path
    """Tables of `r1pipe ablate`, kept in git: each says the commit that it was measured at."""

    report: Path
    bento: Path


_MOST_PROCESSES = 64
"""That a sentence names."""


class Launch(Section):
    """How the stages that train the language model are spread over processes; each has `base.threads` of its own."""

    processes: Count
    """1 runs the stage itself; more go through `accelerate launch`, one a GPU where there are any."""

    accelerate: Path
    """Accelerate's configuration of those processes: DDP, DeepSpeed or FSDP."""

    def refusal(self, name: str, batch_size: int, *, multiple_of: int = 1) -> str | None:
        """Why the processes cannot share a batch evenly, and which numbers would do; None where they can.

        Args:
            name: the batch's parameter.
            batch_size: its sequences.
            multiple_of: what else its size must be a multiple of.
        """
        if batch_size % self.processes == 0:
            return None
        sharing = [number for number in range(1, _MOST_PROCESSES + 1) if batch_size % number == 0]
        unit = lcm(self.processes, multiple_of)
        below = batch_size // unit * unit
        near = [size for size in (below, below + unit) if size]
        return (
            f"{name} ({batch_size}) must be a multiple of launch.processes ({self.processes}): "
            f"{_either(sharing)} processes could share it, and {self.processes} processes could share {_either(near)}"
        )


class Think(Section):
    """Which tasks ask for a chain of thought before the answer."""

    qa: bool
    situated: bool
    grounding: bool
    captioning: bool
    dialogue: bool
    planning: bool
    description: bool

    def on(self, task: Task) -> bool:
        """Whether this task thinks first."""
        return bool(self.model_dump()[task])


def _either(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
