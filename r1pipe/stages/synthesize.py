"""Ask a teacher for a chain of thought per training and validation sample (stage `synthesize`)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from r1pipe.datasets import Sample
from r1pipe.datasets.draft import Draft, Rejection
from r1pipe.files import read_models, write_jsonl
from r1pipe.params import Params
from r1pipe.progress import track
from r1pipe.scenes import Scene
from r1pipe.stages.runner import run
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.replay import ReplayTeacher
from r1pipe.synthesis.scripted import ScriptedTeacher
from r1pipe.synthesis.teacher import Teacher

logger = logging.getLogger(__name__)

_SCENES_IN_MEMORY = 16


def main(params: Params) -> None:
    """Write what the teacher wrote, and, apart, what it refused and why; `validate` judges the former."""
    samples = sorted(_samples(params.paths.samples), key=lambda sample: (sample.split, sample.scene_id, sample.id))
    rows = asyncio.run(_rows(params, samples))
    rejections = [row for row in rows if isinstance(row, Rejection)]
    write_jsonl(params.paths.drafts, [row for row in rows if isinstance(row, Draft)])
    write_jsonl(params.paths.rejects, rejections)
    reasons = Counter(rejection.reason for rejection in rejections)
    logger.info("synthesize: %d drafts, rejected %s", len(rows) - len(rejections), dict(sorted(reasons.items())))


def _samples(folder: Path) -> list[Sample]:
    return [sample for split in ("train", "val") for sample in read_models(folder / f"{split}.jsonl", Sample)]


async def _rows(params: Params, samples: list[Sample]) -> list[Draft | Rejection]:
    teacher, section = await _teacher(params), params.synthesize
    scene = lru_cache(_SCENES_IN_MEMORY)(lambda scene_id: Scene.load(params.paths.scenes, scene_id))
    shown: Iterator[Sample] = track(samples, f"synthesize with {teacher.name}", total=len(samples))
    try:
        return [row async for row in draft_all(shown, teacher, scene, params.think, concurrency=section.concurrency)]
    finally:
        await teacher.close()


async def _teacher(params: Params) -> Teacher:
    section = params.synthesize
    if section.replay is not None and section.teacher == "replay":
        return ReplayTeacher.load(section.replay)
    if section.teacher == "gemini":
        from r1pipe.synthesis.gemini import GeminiTeacher  # google-genai takes seconds to import

        return GeminiTeacher(section.gemini, concurrency=section.concurrency)
    return ScriptedTeacher(seed=params.base.seed, fault_rates=section.faults.model_dump())


if __name__ == "__main__":
    run(main)
