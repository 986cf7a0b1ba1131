"""Texts that the scripted teacher writes only to measure the filters: every kind of fault, at a known rate."""

import asyncio
from collections.abc import Callable, Iterable

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft
from r1pipe.params.run import Think
from r1pipe.scenes import Scene
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.faults import FAULTS
from r1pipe.synthesis.scripted import ScriptedTeacher


def probe(
    samples: Iterable[Sample], scene: Callable[[str], Scene], think: Think, *, fault_rate: float, seed: int
) -> list[Draft]:
    """A draft of each sample that the teacher does not refuse; `fault` says what is wrong with it.

    Args:
        samples: questions of tasks that reason.
        scene: a scene by its id; asked in the samples' order.
        think: which tasks reason.
        fault_rate: the share of samples that is to have a fault, of each kind.
        seed: decides which.
    """
    teacher = ScriptedTeacher(seed=seed, fault_rates=dict.fromkeys(FAULTS, fault_rate))

    async def drafts() -> list[Draft]:
        rows = [row async for row in draft_all(samples, teacher, scene, think, concurrency=1)]
        return [row for row in rows if isinstance(row, Draft)]

    return asyncio.run(drafts())
