"""The sections of `evaluate` and `report`."""

from pydantic import Field

from r1pipe.params.section import Count, EvaluatedTask, Section, Split


class Evaluate(Section):
    """Stage `evaluate`."""

    split: Split
    tasks: tuple[EvaluatedTask, ...]
    batch_size: Count
    max_new_tokens: Count
    num_samples: Count | None
    """At most so many samples a task, the first by id hash; null for all."""

    bootstrap: Count
    """Resamples behind each 95 % interval."""

    reward_samples: Count | None
    """Of these samples at most so many a task have completions sampled and rewarded; null for all."""

    reward_completions: Count
    """Completions a question, sampled at GRPO's temperature, behind the mean reward."""


class Report(Section):
    """Stage `report`."""

    num_examples: Count
    """Questions chosen by lot."""

    num_ranked: int = Field(ge=0)
    """Of each task's questions the best answered, and as many of the worst."""
