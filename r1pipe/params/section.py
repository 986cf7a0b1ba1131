"""What every part of `params.yaml` is made of: sections that know their keys, and ranges of numbers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["qa", "situated", "grounding", "captioning", "dialogue", "planning", "description"]
EvaluatedTask = Literal["qa", "situated", "grounding", "multi-grounding", "captioning", "dialogue", "planning"]
"""What stage `evaluate` measures: `multi-grounding` is grounding whose queries have any number of targets."""

Split = Literal["train", "val", "test"]
Count = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of `params.yaml`: no unknown keys, no edits after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
