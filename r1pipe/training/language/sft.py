"""Supervised fine-tuning, through TRL's own trainer; the controls are the same, from another start."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from safetensors.torch import load_file, save_file
from trl import SFTConfig, SFTTrainer

from r1pipe.files import whole
from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor
from r1pipe.models.r1.weights import Trainable, plain
from r1pipe.params.training import Control, Grpo, Sft
from r1pipe.training.language.checkpoints import train
from r1pipe.training.language.courses import Courses
from r1pipe.training.language.parts import Movement, Watch, check_movement, only_projectors
from r1pipe.training.language.setup import adapt, by_part, save_trained, share_pull, trainer_settings


def learn_to_caption(
    model: R1ForConditionalGeneration,
    processor: R1Processor,
    rows: Dataset,
    sft: Sft,
    *,
    work: Path,
    logs: Path,
    seed: int,
) -> None:
    """Train the projectors on captions while the language model stays as it was made (LLaVA's first stage).

    Args:
        model: changed in place.
        processor: the model's, with the scenes at hand.
        rows: as in `fine_tune`.
        sft: the numbers.
        work: what an interrupted run finds again: checkpoints, and the projectors when they are done.
        logs: dvclive's folder.
        seed: of the batches.

    Raises:
        GateError: if a projector stood still.
    """
    done = work / "projectors.safetensors"
    if done.is_file():
        model.load_state_dict(load_file(done), strict=False)
        return
    rates = sft.learning_rates.model_copy(update={"projectors": sft.caption_learning_rate})
    steps = sft.model_copy(update={"max_steps": sft.caption_steps, "learning_rates": rates})
    with only_projectors(model) as projectors:
        trainer = _trainer(model, processor, rows, steps, work, seed=seed)
        watch = Watch(model)
        train(trainer, work, callbacks=[Courses(logs), watch])
        check_movement("the alignment on captions", watch.movement(), sft.least_moved)
        if trainer.accelerator.is_main_process:
            with whole(done) as draft:
                save_file({name: weights.detach().contiguous() for name, weights in projectors.items()}, draft)
        trainer.accelerator.wait_for_everyone()


def fine_tune(
    model: Trainable,
    processor: R1Processor,
    rows: Dataset,
    sft: Sft,
    *,
    work: Path,
    logs: Path,
    output: Path,
    seed: int,
) -> Movement:
    """Train on the rows' completions and write the model to `output`.

    Args:
        model: where to start; it gets adapters where params ask for them and it has none.
        processor: the model's, with the scenes at hand.
        rows: `prompt`, `completion`, `images`.
        sft: the numbers.
        work: checkpoints to resume from.
        logs: dvclive's folder.
        output: where model and processor go.
        seed: of the adapters, the batches and dropout.

    Returns:
        How far each part has moved.

    Raises:
        GateError: if a part that is trained stood still.
    """
    model = adapt(model, sft.lora, seed=seed)
    trainer = _trainer(model, processor, rows, sft, work, seed=seed)
    watch = Watch(model)
    train(trainer, work, callbacks=[Courses(logs, plain(model)), watch])
    movement = watch.movement()
    check_movement(logs.name, movement, sft.least_moved)
    save_trained(trainer, processor, output)
    return movement


def _trainer(model: Trainable, processor: R1Processor, rows: Dataset, sft: Sft, work: Path, *, seed: int) -> SFTTrainer:
    settings = SFTConfig(
        **trainer_settings(sft, work, seed=seed),
        max_length=None,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": sft.min_learning_rate},
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        logging_steps=10,
        train_sampling_strategy="sequential" if sft.questions_a_room > 1 else "random",
    )
    if sft.questions_a_room > 1:
        rows = rows.select(by_room(rows["images"], sft, seed=seed))
    share_pull(model, settings)
    trainer = SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=processor)
    trainer.optimizer = by_part(trainer, sft, adam_beta2=sft.adam_beta2, adam_epsilon=1e-8)
    return trainer


def by_room(images: Sequence[Sequence[str]], sft: Sft, *, seed: int) -> list[int]:
    """The order of a whole run's rows: rooms at random, `questions_a_room` of one side by side, each row once a pass.

    Args:
        images: the scene reference of each row.
        sft: steps, batch size, questions a room.
        seed: of the order.
    """
    rooms: dict[str, list[int]] = {}
    for row, (reference,) in enumerate(images):
        rooms.setdefault(reference.partition("|")[0], []).append(row)
    rng, order = np.random.default_rng(seed), list[int]()
    while len(order) < sft.max_steps * sft.batch_size:
        shuffled = [rng.permutation(rows).tolist() for rows in rooms.values()]
        parts = [
            rows[i : i + sft.questions_a_room] for rows in shuffled for i in range(0, len(rows), sft.questions_a_room)
        ]
        order += [row for number in rng.permutation(len(parts)) for row in parts[number]]
    return order[: sft.max_steps * sft.batch_size]


def continuation(sft: Sft, grpo: Grpo, control: Control, batch_size: int) -> Sft:
    """The settings of a control: SFT's, with GRPO's tasks, steps and precision, and so many samples a step."""
    return sft.model_copy(
        update={
            "tasks": grpo.tasks,
            "max_steps": grpo.max_steps,
            "batch_size": batch_size,
            "learning_rate": control.learning_rate,
            "learning_rates": control.learning_rates,
            "save_steps": grpo.save_steps,
            "lora": grpo.lora,
            "bf16": grpo.bf16,
            "warmup_steps": 0,
        }
    )
