"""The sections of training the language model: `sft`, `grpo`, and `control` for both of its controls."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1pipe.params.section import Count, NonNegative, Positive, Section, Share, Task


class Lora(Section):
    """Low-rank adapters on q, k, v, o, gate, up and down of the last blocks."""

    r: Count
    alpha: Count
    dropout: Share
    last_blocks: Count


class LearningRates(Section):
    """Learning rates of parts that want one of their own; null takes `learning_rate`.

    Projectors and selector start from nothing where the language model is pretrained: at its learning rate they would
    stand still.
    """

    projectors: Positive | None
    """Of objects, regions, views and depths."""

    selector: Positive | None
    """The weights of the views' utility, three numbers around 0.3 and 0.5."""

    tokens: Positive | None
    """The rows of added tokens beside a frozen language model."""

    gains: Positive | None
    """The weights of normalisation layers where they are trained; adapters leave the language model's alone."""


class Training(Section):
    """What SFT and GRPO share."""

    tasks: tuple[Task, ...]
    lora: Lora | None
    """Null trains every weight of the language model."""

    max_steps: Count
    batch_size: Count
    """Sequences an optimizer step."""

    device_batch_size: Count | None
    """Sequences a forward pass on one device, at most, as its memory allows; null takes a process's whole share at once."""

    learning_rate: Positive
    """Of the language model, or of the adapters on it."""

    learning_rates: LearningRates
    least_moved: Share
    """Share of the weights of every trained part that has to differ from the start when the stage ends."""

    bf16: bool
    """Compute in bfloat16 (autocast); what is trained is float32 either way."""

    gradient_checkpointing: bool
    save_steps: Count
    """Steps between two checkpoints to resume from."""

    def sequences_a_pass(self, processes: int) -> int:
        """The largest divisor of a process's share of the batch that `device_batch_size` allows."""
        share = self.batch_size // processes
        most = min(self.device_batch_size or share, share)
        return next(number for number in range(most, 0, -1) if share % number == 0)


class Sft(Training):
    """Stage `sft`."""

    alignment_steps: Annotated[int, Field(ge=0)]
    """Steps that regress the object projector onto word embeddings before SFT."""

    caption_steps: Annotated[int, Field(ge=0)]
    """Steps on captions alone before SFT in which only the projectors learn: the language model stays as it was made."""

    caption_learning_rate: Positive
    questions_a_room: Count
    """Questions about one room that stand together in a batch, so that it is read once for all; 1 mixes questions freely."""

    min_learning_rate: NonNegative
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NonNegative
    adam_beta2: Share
    view_weight_pull: NonNegative
    """Strength of the L2 term that pulls the selector's w_t to 0.3."""


class RewardWeights(Section):
    """Weights of the rewards in their sum; those from `exact_match` on are off at 0."""

    format: NonNegative
    perception: NonNegative
    semantic: NonNegative
    exact_match: NonNegative
    length: NonNegative
    repetition: NonNegative
    reasoning: NonNegative
    """Of the objects that the thinking names, for the tasks that think."""


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

    schedule: Literal["constant", "linear", "cosine"]
    """What the learning rates do over the steps."""

    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"]
    """How the loss is averaged: `grpo` over sequences, `dapo` over the batch's tokens; TRL has the others."""

    scale_rewards: Literal["group", "batch", "none"]
    """Whose standard deviation advantages are divided by. `batch` is one scale for all tasks: the one whose rewards
    spread little gets little of the gradient. `group` divides by what is noise where a group is about as good."""

    eval_steps: Count
    """Steps between two measurements of the reward on held-out prompts."""

    eval_prompts: Count
    """Prompts of the val split that are measured, always the same ones."""

    reward_weights: RewardWeights
    length_limit: Count
    """Words of a completion up to which the reward `length` is whole; at twice as many it is 0."""

    least_margin: Annotated[float, Field(gt=0, lt=1)]
    """By how much each reward must rate a perfect completion above a cheat, or training does not begin."""

    min_think_words: Annotated[int, Field(ge=0)]
    """Words of thinking below which the reward `format` is 0, for the tasks that think; 0 sets no floor."""

    semantic_baseline: Annotated[float, Field(ge=0, lt=1)]
    """Cosine at which the reward `semantic` begins: (cosine - baseline) / (1 - baseline), at least 0; 0 is the cosine alone.

    Meant for what answers without the scene score on average. `evaluate`'s blind arm gives it: `blind.reward.semantic` of
    `evaluate.json`, over 100, of a run at 0.
    """

    zero_std_alarm_steps: Count
    """Logged steps in a row with a reward's standard deviation at 0 that raise the alarm."""

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Self:
        if self.batch_size % self.group_size:
            raise ValueError(f"batch_size ({self.batch_size}) must be a multiple of group_size ({self.group_size})")
        if self.beta > 0 and self.lora is None:
            raise ValueError(f"beta ({self.beta}) above 0 needs lora, found null")
        return self


class Control(Section):
    """Stage `control`: SFT continued for GRPO's steps, on GRPO's tasks, without RL."""

    learning_rate: Positive
    """Its own: what suits a reward's gradient does not suit a likelihood's."""

    learning_rates: LearningRates


def control_batches(grpo: Grpo) -> dict[str, int]:
    """Samples an optimizer step of each control: as many as GRPO takes prompts, and as many as it takes sequences."""
    return {"prompts": grpo.batch_size // grpo.group_size, "sequences": grpo.batch_size}
