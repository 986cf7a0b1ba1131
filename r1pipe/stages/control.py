"""Continue SFT for GRPO's steps without rewards, on as many prompts and on as many sequences (stage `control`)."""

import gc
import logging
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset
from transformers import set_seed

from r1pipe.files import read_json, remove_drafts, write_json
from r1pipe.models.r1 import R1Processor
from r1pipe.models.r1.configuration import R1Config
from r1pipe.models.r1.store import FeatureStore
from r1pipe.models.r1.weights import load_trainable
from r1pipe.params import Params
from r1pipe.params.training import Sft, control_batches
from r1pipe.stages.launch import is_first, wait_for_all
from r1pipe.stages.runner import run
from r1pipe.stages.work import deliver, in_progress, record_movement
from r1pipe.training.language.corpus import read_corpus
from r1pipe.training.language.examples import sft_rows
from r1pipe.training.language.sft import continuation, fine_tune

logger = logging.getLogger(__name__)


def main(params: Params) -> None:
    """Train the arms that tell what GRPO adds to merely training longer; one that is trained outlives an interruption."""
    paths = params.paths
    controls = {
        name: continuation(params.sft, params.grpo, params.control, batch_size)
        for name, batch_size in control_batches(params.grpo).items()
    }
    store = FeatureStore.load(paths.features)
    instruct = R1Config.from_pretrained(paths.sft).instruct
    rows = sft_rows(read_corpus(paths, store, params.grpo.tasks).examples, params.think, instruct=instruct)
    with in_progress(
        "control",
        [params.base, params.launch, params.think, *controls.values()],
        [paths.sft, paths.cot, paths.features],
    ) as work:
        trained = _trained(work, controls)
        for name, settings in controls.items():
            if name in trained:
                logger.info("control_%s has been trained.", name)
                continue
            logger.info("control_%s: %d samples a step.", name, settings.batch_size)
            _train(name, settings, paths.sft, store, rows, work=work, seed=params.base.seed)
            gc.collect()  # a trainer refers to itself, and two do not fit a GPU that one fills
        if is_first():
            remove_drafts(work / "models")
            # Models first: where only they have gone, the next run makes them and the logs anew from the last checkpoint.
            deliver(work / "models", paths.control)
            deliver(work / "logs", paths.logs / "control")
            record_movement(paths, "control", {name: read_json(_movement(work, name)) for name in controls})


def _trained(work: Path, names: Iterable[str]) -> set[str]:
    """The controls that an interrupted run has finished, the same in every process."""
    wait_for_all()  # the first may have waited for whoever was at this work
    found = {name for name in names if (work / "models" / name).is_dir()}
    wait_for_all()  # the first may move them
    return found


def _train(name: str, settings: Sft, start: Path, store: FeatureStore, rows: Dataset, *, work: Path, seed: int) -> None:
    """Train one control from the model at `start`; whatever it leaves lies in the work folder."""
    set_seed(seed)  # what is drawn must not depend on what was trained before
    movement = fine_tune(
        load_trainable(start),
        R1Processor.load(start, store),
        rows,
        settings,
        work=work / "checkpoints" / name,
        logs=work / "logs" / name,
        output=work / "models" / name,
        seed=seed,
    )
    if is_first():
        write_json(_movement(work, name), movement)


def _movement(work: Path, name: str) -> Path:
    return work / f"movement-{name}.json"


if __name__ == "__main__":
    run(main, in_processes=True)
