"""A chain of thought as a teacher wrote it, the row of `data/cot/*.jsonl`; and why there is none."""

from pydantic import BaseModel, ConfigDict, Field

from r1pipe.datasets.sample import Sample
from r1pipe.params.section import Split, Task
from r1pipe.response import identifier

NO_TARGET = "none"
"""The answer to a grounding question that no object fits."""


class Draft(BaseModel):
    """A sample's text to learn from; has the columns of the released Scene-30K (`scene_id`, `question`, `cot`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    """The sample's id."""

    scene_id: str
    question: str
    cot: str
    """Reasoning and answer in the grammar of `response`; objects by their annotation ids."""

    task: Task
    answers: tuple[str, ...]
    split: Split
    teacher: str
    """Who wrote it; `reference` where the task asks for no reasoning, so that the answer is the annotation itself."""

    second_answer: str | None = None
    """The answer that a second pass drew from the reasoning alone."""

    fault: str | None = None
    """What the scripted teacher did wrong on purpose."""

    prompt: str | None = Field(default=None, exclude_if=lambda version: version is None)
    """The version of the templates that the teacher's prompt was made of; left out where there was none."""


class Rejection(BaseModel):
    """A sample without a text, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str
    scene_id: str
    teacher: str
    reason: str
    """`synthesis.teacher.Refusal` has the reasons."""

    detail: str
    """What was seen, for a person."""


def reference(sample: Sample) -> str | None:
    """The right answer as text: the first reference, or the identifiers of the targets; None without either."""
    if sample.task == "grounding":
        return " ".join(map(identifier, sorted(sample.object_ids))) or NO_TARGET
    return sample.answers[0].strip() or None if sample.answers else None
