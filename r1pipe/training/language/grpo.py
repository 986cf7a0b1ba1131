"""Group-relative policy optimisation with three rewards, through TRL's own trainer (paper, section 3.2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor
from r1pipe.params.training import Grpo
from r1pipe.rewards.semantic import SemanticReward, TextEncoder
from r1pipe.rewards.total import build_rewards
from r1pipe.training.language.checkpoints import last_checkpoint, train
from r1pipe.training.language.completions import Completions
from r1pipe.training.language.courses import Courses, DeadRewardAlarm
from r1pipe.training.language.setup import lora_config, save, share_pull, trainer_settings


def optimise(
    model: R1ForConditionalGeneration,
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
) -> None:
    """Train on the rewards of the model's own completions and write it to `output`.

    Args:
        model: the model after SFT.
        processor: the model's, with the scenes at hand.
        rows: `prompt`, `images` and the rewards' columns.
        held_out: the same of prompts that are measured now and then, never trained on.
        text_encoder: CLIP, for the semantic reward.
        grpo: the numbers.
        work: checkpoints to resume from.
        logs: dvclive's folder.
        output: where model and processor go.
        seed: of batches and sampling.

    Raises:
        GateError: if a reward does not rate a perfect completion above a cheat by `least_margin`.
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
    share_pull(model, settings)
    trainer = GRPOTrainer(
        model=model,
        args=settings,
        reward_funcs=list(rewards.values()),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=lora_config(grpo.lora, model.config.text_config.num_hidden_layers),
        optimizers=(None if grpo.gain_learning_rate is None else gains_apart(model, grpo), None),
    )
    watching = [
        Completions(trainer, grpo.group_size, parts=work / "completions", table=logs / "completions.jsonl"),
        Courses(logs, model),
        DeadRewardAlarm(grpo.zero_std_alarm_steps),
    ]
    memories = [reward for reward in rewards.values() if isinstance(reward, SemanticReward)]
    train(trainer, work, callbacks=watching, memories=memories)
    save(trainer, processor, output)


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
        # Not divided by a group's own spread: where all completions are about as good, that spread is noise.
        scale_rewards="batch",
        adam_beta2=grpo.adam_beta2,
        adam_epsilon=grpo.adam_epsilon,
        reward_weights=list(weights),
        logging_steps=5,
    )


def gains_apart(model: torch.nn.Module, grpo: Grpo) -> torch.optim.AdamW:
    """An optimizer that moves the normalisation layers at `gain_learning_rate`, and all else at `learning_rate`.

    Every token of every completion pulls at the few gains, so what they are pulled to stands out of the noise that
    keeps the learning rate of all other weights low.
    """
    named = list(model.named_parameters())
    gains = [weights for name, weights in named if "norm" in name]
    rest = [weights for name, weights in named if "norm" not in name]
    groups: list[dict[str, Any]] = [
        {"params": rest, "lr": grpo.learning_rate, "eps": grpo.adam_epsilon},
        {"params": gains, "lr": grpo.gain_learning_rate},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, grpo.adam_beta2), weight_decay=0.0)
