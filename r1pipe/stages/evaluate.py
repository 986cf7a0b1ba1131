"""Measure SFT, GRPO, the controls and the blind arm alike, with intervals (stage `evaluate`)."""

from collections.abc import Sequence

from r1pipe.datasets.sample import Sample
from r1pipe.evaluation.arms import evaluate
from r1pipe.evaluation.looking import TUNED, Sight, follow
from r1pipe.evaluation.provenance import provenance
from r1pipe.evaluation.sampled import RewardRules
from r1pipe.evaluation.table import summary
from r1pipe.evaluation.tasks import questions
from r1pipe.files import read_jsonl, read_models, write_json
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1.answering import Answerer
from r1pipe.params import Params
from r1pipe.params.training import control_batches
from r1pipe.rewards.total import build_rewards
from r1pipe.scenes.scene import Scene
from r1pipe.stages.runner import run
from r1pipe.stages.work import deliver, in_progress
from r1pipe.views.views import Views


def main(params: Params) -> None:
    """Ask every arm the questions of the split, keep what it said, and score it; finished batches survive an interruption."""
    paths, settings, grpo = params.paths, params.evaluate, params.grpo
    source = paths.samples / f"{settings.split}.jsonl"
    samples = read_models(source, Sample)
    features = {name: SceneFeatures.load(paths.features, name) for name in sorted({s.scene_id for s in samples})}
    asked = {task: questions(task, samples, features, settings.num_samples) for task in settings.tasks}
    rewards = build_rewards(
        Clip.load(paths.backbones / "clip"),
        grpo.reward_weights,
        length_limit=grpo.length_limit,
        least_margin=grpo.least_margin,
        min_think_words=grpo.min_think_words,
        semantic_baseline=grpo.semantic_baseline,
    )
    models = {
        "sft": paths.sft,
        "grpo": paths.grpo,
        **{f"control_{name}": paths.control / name for name in control_batches(params.grpo)},
    }
    with in_progress(
        "evaluate",
        [params.base, settings, grpo, params.think],
        [*models.values(), source, paths.features, paths.backbones],
    ) as work:
        metrics = evaluate(
            lambda name: Answerer.load(models[name], features=paths.features, backbones=paths.backbones),
            asked,
            features,
            rules=RewardRules(rewards, grpo.reward_weights, grpo.temperature),
            settings=settings,
            think=params.think,
            seed=params.base.seed,
            work=work,
            folder=work / "predictions",
        )
        deliver(work / "predictions", paths.predictions)
        write_json(paths.metrics / "evaluate.json", metrics)
        write_json(paths.metrics / "summary.json", summary(metrics))
        write_json(paths.metrics / "views.json", _looking(params, samples))
        facts = provenance(settings.tasks, models, source, settings, params.base.seed, temperature=grpo.temperature)
        write_json(paths.metrics / "provenance.json", facts)


def _looking(params: Params, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Whether the tuned model's views follow the question."""
    paths = params.paths
    return follow(
        list(read_jsonl(paths.predictions / f"views-{TUNED}.jsonl")),
        samples,
        lambda name: Sight(Views.load(paths.views, name).index, Scene.load(paths.scenes, name).instance),
        resamples=params.evaluate.bootstrap,
        seed=params.base.seed,
    )


if __name__ == "__main__":
    run(main)
