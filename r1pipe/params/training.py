"""The sections of training the language model: `sft`, `grpo`, and `control` for both of its controls."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, NonNegative, Positive, Section, Share, Task


class Lora(Section):
    """Low-rank adapters on q, k, v, o, gate, up and down of the last blocks."""

    r: Count
    alpha: Count
    dropout: Share
    last_blocks: Count


class Training(Section):
    """What SFT and GRPO share."""

    tasks: tuple[Task, ...]
    lora: Lora | None
    """Null trains every weight of the language model."""

    max_steps: Count
    batch_size: Count
    """Sequences an optimizer step."""

    device_batch_size: Count | None
    """Sequences a forward pass on one device, as its memory allows; null takes a process's whole share at once."""

    learning_rate: Positive
    bf16: bool
    gradient_checkpointing: bool
    save_steps: Count
    """Steps between two checkpoints to resume from."""


class Sft(Training):
    """Stage `sft`."""

    alignment_steps: Annotated[int, Field(ge=0)]
    """Steps that regress the object projector onto word embeddings before SFT."""

    min_learning_rate: NonNegative
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    adam_beta2: Share
    view_weight_pull: NonNegative
    """Strength of the L2 term that pulls the selector's w_t to 0.3."""


class RewardWeights(Section):
    """Weights of the rewards in their sum; the last three are off at 0."""

    format: NonNegative
    perception: NonNegative
    semantic: NonNegative
    exact_match: NonNegative
    length: NonNegative
    repetition: NonNegative


class Grpo(Training):
    """Stage `grpo`."""

    group_size: Annotated[int, Field(ge=2)]
    """Completions of one prompt, compared with each other."""

    beta: NonNegative
    """Weight of the KL divergence from the reference; above 0 it needs `lora`, whose absence is the reference."""

    temperature: Positive
    max_completion_length: Count
    adam_beta2: Share
    adam_epsilon: Positive
    """At the size of the gradients themselves, weights that the rewards say little about hardly move."""

    gain_learning_rate: Positive | None
    """Of the weights of normalisation layers; null for that of all others. Adapters leave these weights alone."""

    eval_steps: Count
    """Steps between two measurements of the reward on held-out prompts."""

    eval_prompts: Count
    """Prompts of the val split that are measured, always the same ones."""

    reward_weights: RewardWeights
    length_limit: Count
    """Words of a completion up to which the reward `length` is whole; at twice as many it is 0."""

    zero_std_alarm_steps: Count
    """Logged steps in a row with a reward's standard deviation at 0 that raise the alarm."""

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Self:
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of group_size ({self.group_size})")
        if self.beta > 0 and self.lora is None:
            raise ValueError(f"beta ({self.beta}) above 0 needs lora, found null")
        if self.gain_learning_rate is not None and self.lora is not None:
            raise ValueError(f"gain_learning_rate ({self.gain_learning_rate}) needs lora null: adapters train no gains")
        return self


class Control(Section):
    """Stage `control`: SFT continued for GRPO's steps, on GRPO's tasks, without RL."""

    learning_rate: Positive
    """Its own: what suits a reward's gradient does not suit a likelihood's."""


def control_batches(grpo: Grpo) -> dict[str, int]:
    """Samples an optimizer step of each control: as many as GRPO takes prompts, and as many as it takes sequences."""
    return {"prompts": grpo.batch_size // grpo.group_size, "sequences": grpo.batch_size}
