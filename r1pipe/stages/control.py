"""Continue SFT for as many steps and sequences as GRPO takes, without rewards (stage `control`)."""

from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor
from r1pipe.models.r1.store import FeatureStore
from r1pipe.params import Params
from r1pipe.stages.runner import run
from r1pipe.stages.work import in_progress
from r1pipe.training.language.corpus import read_corpus
from r1pipe.training.language.examples import sft_rows
from r1pipe.training.language.sft import continuation, fine_tune


def main(params: Params) -> None:
    """The arm that tells what GRPO adds to merely training longer."""
    paths = params.paths
    settings = continuation(params.sft, params.grpo, params.control)
    store = FeatureStore.load(paths.features)
    rows = sft_rows(read_corpus(paths, store, settings.tasks).examples, params.think)
    model = R1ForConditionalGeneration.from_pretrained(paths.sft)
    processor = R1Processor.load(paths.sft, store)
    with in_progress(
        "control", [params.base, params.launch, params.think, settings], [paths.sft, paths.cot, paths.features]
    ) as work:
        fine_tune(
            model,
            processor,
            rows,
            settings,
            work=work,
            logs=paths.logs / "control",
            output=paths.control,
            seed=params.base.seed,
        )


if __name__ == "__main__":
    run(main, in_processes=True)
