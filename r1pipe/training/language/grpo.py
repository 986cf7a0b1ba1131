"""Group-relative policy optimisation with three rewards, through TRL's own trainer (paper, section 3.2)."""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1pipe.models.r1 import R1Processor
from r1pipe.models.r1.weights import Trainable, plain
from r1pipe.params.training import Grpo
from r1pipe.rewards.semantic import SemanticReward, TextEncoder
from r1pipe.rewards.total import build_rewards
from r1pipe.training.language.checkpoints import last_checkpoint, train
from r1pipe.training.language.completions import Completions
from r1pipe.training.language.courses import Courses, DeadRewardAlarm
from r1pipe.training.language.parts import Movement, Watch, check_movement
from r1pipe.training.language.setup import adapt, by_part, save_trained, share_pull, trainer_settings


def optimise(
    model: Trainable,
    processor: R1Processor,
    rows: Dataset,
    held_out: Dataset,
    text_encoder: TextEncoder,
    grpo: Grpo,
    *,
    work: Path,
    logs: Path,
    output: Path,
    seed: int,
) -> Movement:
    """Train on the rewards of the model's own completions and write it to `output`.

    Args:
        model: the model after SFT; the reference is its start.
        processor: the model's, with the scenes at hand.
        rows: `prompt`, `images` and the rewards' columns.
        held_out: the same of prompts that are measured now and then, never trained on.
        text_encoder: CLIP, for the semantic reward.
        grpo: the numbers.
        work: checkpoints to resume from.
        logs: dvclive's folder.
        output: where model and processor go.
        seed: of batches and sampling.

    Returns:
        How far each part has moved.

    Raises:
        GateError: if a reward does not rate a perfect completion above a cheat by `least_margin`, or if a part that is
            trained stood still.
    """
    rewards = build_rewards(
        text_encoder,
        grpo.reward_weights,
        length_limit=grpo.length_limit,
        least_margin=grpo.least_margin,
        min_think_words=grpo.min_think_words,
        semantic_baseline=grpo.semantic_baseline,
    )
    weights = [grpo.reward_weights.model_dump()[name] for name in rewards]
    settings = grpo_settings(grpo, weights, work, seed=seed)
    model = adapt(model, grpo.lora, seed=seed)
    share_pull(model, settings)
    trainer = GRPOTrainer(
        model=model,
        args=settings,
        reward_funcs=list(rewards.values()),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
    )
    trainer.optimizer = by_part(trainer, grpo, adam_beta2=grpo.adam_beta2, adam_epsilon=grpo.adam_epsilon)
    watch = Watch(model)
    watching = [
        Completions(trainer, grpo.group_size, parts=work / "completions", table=logs / "completions.jsonl"),
        Courses(logs, plain(model)),
        DeadRewardAlarm(grpo.zero_std_alarm_steps),
        watch,
    ]
    memories = [reward for reward in rewards.values() if isinstance(reward, SemanticReward)]
    train(trainer, work, callbacks=watching, memories=memories)
    movement = watch.movement()
    check_movement(logs.name, movement, grpo.least_moved)
    save_trained(trainer, processor, output)
    return movement


def grpo_settings(grpo: Grpo, weights: Sequence[float], work: Path, *, seed: int) -> GRPOConfig:
    """TRL's settings: one update a completion, on policy, so that no completion outlives an optimizer step.

    Args:
        grpo: the numbers.
        weights: of the rewards, in their order.
        work: checkpoints to resume from.
        seed: of batches and sampling.
    """
    shared = trainer_settings(grpo, work, seed=seed)
    groups = -(-shared["per_device_train_batch_size"] // grpo.group_size)
    return GRPOConfig(
        **shared,
        num_generations=grpo.group_size,
        num_iterations=1,
        steps_per_generation=shared["gradient_accumulation_steps"],
        max_completion_length=grpo.max_completion_length,
        per_device_eval_batch_size=groups * grpo.group_size,
        eval_strategy="steps",
        eval_steps=grpo.eval_steps,
        # The start is measured once: an interrupted run has it in its history.
        eval_on_start=last_checkpoint(work) is None,
        temperature=grpo.temperature,
        beta=grpo.beta,
        loss_type=grpo.loss_type,
        scale_rewards=grpo.scale_rewards,
        lr_scheduler_type=grpo.schedule,
        reward_weights=list(weights),
        logging_steps=5,
    )
