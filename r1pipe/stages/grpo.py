"""Reward what the model says by itself: format, boxes, meaning (stage `grpo`)."""

from r1pipe.models.encoders.clip import Clip
from r1pipe.models.r1 import R1Processor
from r1pipe.models.r1.store import FeatureStore
from r1pipe.models.r1.weights import load_trainable, plain
from r1pipe.params import Params
from r1pipe.stages.runner import run
from r1pipe.stages.work import in_progress, record_movement
from r1pipe.training.language.corpus import read_corpus
from r1pipe.training.language.examples import grpo_rows, some
from r1pipe.training.language.grpo import optimise


def main(params: Params) -> None:
    """Go on from the model after SFT, with group-relative policy optimisation."""
    paths, grpo = params.paths, params.grpo
    store = FeatureStore.load(paths.features)
    corpus = read_corpus(paths, store, grpo.tasks)
    model = load_trainable(paths.sft)
    instruct = plain(model).config.instruct
    rows = grpo_rows(corpus.examples, corpus.features, params.think, instruct=instruct)
    val = read_corpus(paths, store, grpo.tasks, "val")
    held_out = grpo_rows(some(val.examples, grpo.eval_prompts), val.features, params.think, instruct=instruct)
    processor = R1Processor.load(paths.sft, store)
    with in_progress(
        "grpo", [params.base, params.launch, params.think, grpo], [paths.sft, paths.cot, paths.features]
    ) as work:
        movement = optimise(
            model,
            processor,
            rows,
            held_out,
            Clip.load(paths.backbones / "clip"),
            grpo,
            work=work,
            logs=paths.logs / "grpo",
            output=paths.grpo,
            seed=params.base.seed,
        )
        record_movement(paths, "grpo", movement)


if __name__ == "__main__":
    run(main, in_processes=True)
