"""Teach the model to look and to answer in the grammar (stage `sft`)."""

import logging

from r1pipe.models.r1 import R1Processor, SceneReader
from r1pipe.models.r1.language import load_tokenizer, train_tokenizer
from r1pipe.models.r1.store import FeatureStore
from r1pipe.models.r1.weights import for_this_machine
from r1pipe.params import Params
from r1pipe.stages.runner import run
from r1pipe.stages.work import in_progress, record_movement
from r1pipe.training.language.alignment import align, scale_start
from r1pipe.training.language.corpus import detection_words, read_corpus
from r1pipe.training.language.examples import sft_rows, texts
from r1pipe.training.language.setup import build_model
from r1pipe.training.language.sft import fine_tune, learn_to_caption

logger = logging.getLogger(__name__)


def main(params: Params) -> None:
    """Build the model, align its objects with words, fine-tune on the validated chains of thought."""
    paths, seed = params.paths, params.base.seed
    store = FeatureStore.load(paths.features)
    corpus = read_corpus(paths, store, params.sft.tasks)
    logger.info("%d examples; %d left out, their objects not all detected.", len(corpus.examples), corpus.num_left_out)
    rows = sft_rows(corpus.examples, params.think, instruct=params.model.language is not None)
    if params.model.language is None:
        tokenizer = train_tokenizer(texts(rows), params.model.vocabulary, params.model.num_objects)
    else:
        tokenizer = load_tokenizer(params.model)
    scenes = list(corpus.features.values())
    model = build_model(
        params.model,
        tokenizer,
        scenes[0],
        lora=params.sft.lora,
        view_weight_pull=params.sft.view_weight_pull,
        seed=seed,
    )
    if model.config.instruct:
        scale_start(model, scenes)
        model = for_this_machine(model)
    if "points" in params.model.modalities:
        words = detection_words(paths.scenes, corpus.features)
        align(model, tokenizer, scenes, words, steps=params.sft.alignment_steps, seed=seed)
    processor = R1Processor(SceneReader(model.config, store), tokenizer)
    with in_progress(
        "sft", [params.base, params.launch, params.think, params.model, params.sft], [paths.cot, paths.features]
    ) as work:
        if params.sft.caption_steps:
            captions = read_corpus(paths, store, ["captioning"]).examples
            learn_to_caption(
                model,
                processor,
                sft_rows(captions, params.think, instruct=model.config.instruct),
                params.sft,
                work=work / "captions",
                logs=paths.logs / "sft" / "captions",
                seed=seed,
            )
        movement = fine_tune(
            model, processor, rows, params.sft, work=work, logs=paths.logs / "sft", output=paths.sft, seed=seed
        )
        record_movement(paths, "sft", movement)


if __name__ == "__main__":
    run(main, in_processes=True)
