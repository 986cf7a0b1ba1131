"""Supervised fine-tuning, through TRL's own trainer; the controls are the same, from another start."""

from pathlib import Path

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor
from r1pipe.params.training import Control, Grpo, Sft
from r1pipe.training.language.checkpoints import train
from r1pipe.training.language.courses import Courses
from r1pipe.training.language.setup import lora_config, save, share_pull, trainer_settings


def fine_tune(
    model: R1ForConditionalGeneration,
    processor: R1Processor,
    rows: Dataset,
    sft: Sft,
    *,
    work: Path,
    logs: Path,
    output: Path,
    seed: int,
) -> None:
    """Train on the rows' completions and write the model to `output`.

    Args:
        model: where to start.
        processor: the model's, with the scenes at hand.
        rows: `prompt`, `completion`, `images`.
        sft: the numbers.
        work: checkpoints to resume from.
        logs: dvclive's folder.
        output: where model and processor go.
        seed: of the batches and dropout.
    """
    settings = SFTConfig(
        **trainer_settings(sft, work, seed=seed),
        max_length=None,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": sft.min_learning_rate},
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        adam_beta2=sft.adam_beta2,
        logging_steps=10,
    )
    share_pull(model, settings)
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=processor,
        peft_config=lora_config(sft.lora, model.config.text_config.num_hidden_layers),
    )
    train(trainer, work, callbacks=[Courses(logs, model)])
    save(trainer, processor, output)


def continuation(sft: Sft, grpo: Grpo, control: Control, batch_size: int) -> Sft:
    """The settings of a control: SFT's, with GRPO's tasks, steps and precision, and so many samples a step."""
    return sft.model_copy(
        update={
            "tasks": grpo.tasks,
            "max_steps": grpo.max_steps,
            "batch_size": batch_size,
            "learning_rate": control.learning_rate,
            "save_steps": grpo.save_steps,
            "lora": grpo.lora,
            "bf16": grpo.bf16,
            "warmup_steps": 0,
        }
    )
