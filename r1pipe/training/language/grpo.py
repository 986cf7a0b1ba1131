"""Group-relative policy optimisation with three rewards, through TRL's own trainer (paper, section 3.2)."""

from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor
from r1pipe.params import Grpo, RewardWeights
from r1pipe.rewards import SemanticReward, format_reward, perception_reward
from r1pipe.rewards.check import Reward, self_check
from r1pipe.rewards.semantic import TextEncoder
from r1pipe.training.language.courses import Courses, DeadRewardAlarm
from r1pipe.training.language.setup import lora_config, save, train, trainer_settings


def build_rewards(text_encoder: TextEncoder) -> dict[str, Reward]:
    """The three rewards by name, checked."""
    rewards: dict[str, Reward] = {
        "format": format_reward,
        "perception": perception_reward,
        "semantic": SemanticReward(text_encoder),
    }
    self_check(rewards)
    return rewards


def _weights(weights: RewardWeights, names: list[str]) -> list[float]:
    return [float(weights.model_dump()[name]) for name in names]


def optimise(
    model: R1ForConditionalGeneration,
    processor: R1Processor,
    rows: Dataset,
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
        text_encoder: CLIP, for the semantic reward.
        grpo: the numbers.
        work: checkpoints to resume from.
        logs: dvclive's folder.
        output: where model and processor go.
        seed: of batches and sampling.

    Raises:
        GateError: if a reward rates a cheat as high as a perfect completion.
    """
    rewards = build_rewards(text_encoder)
    settings = GRPOConfig(
        **trainer_settings(grpo, work, seed=seed),
        num_generations=grpo.group_size,
        max_completion_length=grpo.max_completion_length,
        temperature=grpo.temperature,
        beta=grpo.beta,
        reward_weights=_weights(grpo.reward_weights, list(rewards)),
        logging_steps=5,
    )
    trainer = GRPOTrainer(
        model=model,
        args=settings,
        reward_funcs=list(rewards.values()),
        train_dataset=rows,
        processing_class=processor,
        peft_config=lora_config(grpo.lora, model.config.text_config.num_hidden_layers),
        callbacks=[Courses(logs, model), DeadRewardAlarm(grpo.zero_std_alarm_steps)],
    )
    train(trainer, work)
    save(trainer, processor, output)
