"""From samples to drafts: in order, with as many under way as the teacher takes, and with few in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft, Rejection, reference
from r1pipe.params.run import Think
from r1pipe.response import compose
from r1pipe.synthesis.teacher import Refusal, SceneOf, Teacher, Thought

REFERENCE = "reference"
"""The teacher of a sample whose task asks for no reasoning: its annotation."""

_WINDOW = 4
"""Samples under way a slot: a slow answer holds up the order, not the others."""


async def draft_all(
    samples: Iterable[Sample], teacher: Teacher, scene: SceneOf, think: Think, *, concurrency: int
) -> AsyncIterator[Draft | Rejection]:
    """A draft or a rejection for each sample, in the samples' order.

    Args:
        samples: may be a generator; at most `4 * concurrency` are held at once.
        teacher: who reasons, where `think` is on for the sample's task.
        scene: a scene by its id; asked in the samples' order.
        think: which tasks reason.
        concurrency: how many the teacher answers at once.
    """
    under_way: deque[asyncio.Task[Draft | Rejection]] = deque()
    try:
        for sample in samples:
            under_way.append(asyncio.create_task(_draft(sample, teacher, scene, think)))
            if len(under_way) >= _WINDOW * concurrency:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _draft(sample: Sample, teacher: Teacher, scene: SceneOf, think: Think) -> Draft | Rejection:
    if not think.on(sample.task):
        answer = reference(sample)
        if answer is None:
            return _rejection(sample, REFERENCE, Refusal("empty", "the sample has no reference"))
        return _row(sample, REFERENCE, Thought(compose("", answer), None))
    thought = await teacher.think(sample, scene(sample.scene_id))
    if isinstance(thought, Refusal):
        return _rejection(sample, teacher.name, thought)
    return _row(sample, teacher.name, thought)


def _row(sample: Sample, teacher: str, thought: Thought) -> Draft:
    shared = sample.model_dump(include={"id", "scene_id", "question", "task", "answers", "split"})
    return Draft(
        **shared,
        cot=thought.text,
        teacher=teacher,
        second_answer=thought.second_answer,
        fault=thought.fault,
        prompt=thought.prompt,
    )


def _rejection(sample: Sample, teacher: str, refusal: Refusal) -> Rejection:
    return Rejection(
        id=sample.id, scene_id=sample.scene_id, teacher=teacher, reason=refusal.reason, detail=refusal.detail
    )
