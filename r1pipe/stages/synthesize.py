"""Ask a teacher for a chain of thought per training and validation sample, or for some of them (stage `synthesize`)."""

import asyncio
import logging
from collections import Counter
from functools import lru_cache

from r1pipe.datasets.draft import Draft
from r1pipe.files import remove_drafts, whole
from r1pipe.params import Params
from r1pipe.params.section import Split
from r1pipe.progress import track
from r1pipe.scenes import Scene
from r1pipe.stages.runner import run
from r1pipe.synthesis.drafting import draft_all
from r1pipe.synthesis.estimate import Estimate, estimate
from r1pipe.synthesis.prompts import Picture, Prompts
from r1pipe.synthesis.replay import ReplayTeacher
from r1pipe.synthesis.samples import SampleFiles
from r1pipe.synthesis.scripted import ScriptedTeacher
from r1pipe.synthesis.teacher import SceneOf, Teacher

logger = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "val")
_SCENES_IN_MEMORY = 16


def main(params: Params) -> None:
    """Write what the teacher wrote, and, apart, what it refused and why; `validate` judges the former."""
    reasons = asyncio.run(_synthesize(params, _samples(params)))
    drafts = reasons.pop(None, 0)
    logger.info("synthesize: %d drafts, rejected %s", drafts, dict(sorted(reasons.items(), key=str)))


def price(params: Params) -> Estimate:
    """What a run with the teacher `gemini` would ask and cost; asks nothing."""
    samples = _samples(params)
    shown = track(samples, "synthesize, pricing", total=len(samples))
    return estimate(shown, _scenes(params), _prompts(params, samples), params.synthesize.gemini, params.think)


async def _synthesize(params: Params, samples: SampleFiles) -> Counter[str | None]:
    """Rejects by reason; drafts under None."""
    scene = _scenes(params)
    reasons: Counter[str | None] = Counter()
    paths = params.paths
    remove_drafts(paths.drafts.parent)
    with (
        whole(paths.drafts) as drafts,
        whole(paths.rejects) as rejects,
        drafts.open("w") as kept,
        rejects.open("w") as out,
    ):
        teacher = _teacher(params, samples)
        shown = track(samples, f"synthesize with {teacher.name}", total=len(samples), status=lambda: teacher.status)
        try:
            await teacher.prepare(lambda: (sample for sample in samples if params.think.on(sample.task)), scene)
            async for row in draft_all(shown, teacher, scene, params.think, concurrency=params.synthesize.concurrency):
                (kept if isinstance(row, Draft) else out).write(row.model_dump_json() + "\n")
                reasons[None if isinstance(row, Draft) else row.reason] += 1
        finally:
            await teacher.close()
    return reasons


def _samples(params: Params) -> SampleFiles:
    return SampleFiles(params.paths.samples, SPLITS, params.synthesize.most)


def _teacher(params: Params, samples: SampleFiles) -> Teacher:
    section = params.synthesize
    if section.replay is not None and section.teacher == "replay":
        return ReplayTeacher.load(section.replay)
    if section.teacher == "gemini":
        from r1pipe.synthesis.gemini import GeminiTeacher  # google-genai takes seconds to import

        return GeminiTeacher(section.gemini, _prompts(params, samples), concurrency=section.concurrency)
    return ScriptedTeacher(seed=params.base.seed, fault_rates=section.faults.model_dump())


def _scenes(params: Params) -> SceneOf:
    return lru_cache(_SCENES_IN_MEMORY)(lambda scene_id: Scene.load(params.paths.scenes, scene_id))


def _prompts(params: Params, samples: SampleFiles) -> Prompts:
    num_views = params.synthesize.gemini.views
    if num_views == 0:
        return Prompts(samples.captions)
    from r1pipe.synthesis.pictures import pictures  # the renderer takes seconds to import

    def seen(scene: Scene) -> tuple[Picture, ...]:
        return pictures(scene, params.render, num_views)

    return Prompts(samples.captions, seen)


if __name__ == "__main__":
    run(main)
