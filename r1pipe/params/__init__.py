"""The typed mirror of `params.yaml`: every number that a person may change.

No value has a default here: what a run used stands in `params.yaml`, where `dvc params diff` sees it.
"""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from r1pipe.errors import MissingError, ParamsError
from r1pipe.params.chains import Synthesize, Validate
from r1pipe.params.encoders import Backbones, Encode
from r1pipe.params.evaluation import Evaluate, Report
from r1pipe.params.flows import Flows
from r1pipe.params.model import Model
from r1pipe.params.run import Base, Launch, Paths, Think
from r1pipe.params.scenes import Collect, Prepare, Render
from r1pipe.params.section import Section
from r1pipe.params.serving import Package, Serve
from r1pipe.params.training import Control, Grpo, Sft, control_batches


class Params(Section):
    """All of `params.yaml`."""

    base: Base
    paths: Paths
    launch: Launch
    think: Think
    collect: Collect
    prepare: Prepare
    render: Render
    backbones: Backbones
    encode: Encode
    synthesize: Synthesize
    validate_: Validate = Field(alias="validate")
    model: Model
    sft: Sft
    grpo: Grpo
    control: Control
    evaluate: Evaluate
    report: Report
    package: Package
    serve: Serve
    flows: Flows

    @model_validator(mode="after")
    def _processes_share_the_batches(self) -> Self:
        """Refuse a number of processes that leaves a remainder, whatever the stage: what a run used stands for all."""
        refusals = (
            self.launch.refusal("sft.batch_size", self.sft.batch_size),
            self.launch.refusal("grpo.batch_size", self.grpo.batch_size, multiple_of=self.grpo.group_size),
            self.launch.refusal("the batch of control_prompts", control_batches(self.grpo)["prompts"]),
        )
        if any(refusals):
            raise ValueError("; ".join(filter(None, refusals)))
        return self

    @model_validator(mode="after")
    def _adapters_go_on(self) -> Self:
        """What SFT has frozen, GRPO and the controls cannot thaw: they go on with its adapters."""
        if self.sft.lora is None and self.model.frozen_dtype != "float32":
            raise ValueError(
                f"model.frozen_dtype ({self.model.frozen_dtype}) needs sft.lora: what is trained is float32"
            )
        if self.sft.lora is not None and self.grpo.lora != self.sft.lora:
            raise ValueError(
                f"grpo.lora ({self.grpo.lora}) must be sft.lora ({self.sft.lora}), whose adapters it trains"
            )
        return self

    def values(self) -> dict[str, Any]:
        """What a run is made from, as JSON has it; where things lie on a machine is no part of that."""
        return self.model_dump(mode="json", by_alias=True, exclude={"paths"})

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Self:
        """Parse and check the file; the only place that reads it.

        Raises:
            MissingError: if there is no such file.
            ParamsError: at the first key that is unknown, missing or out of range.
        """
        if not path.is_file():
            raise MissingError(
                f"Expected the parameters at {path.absolute()}, found no such file; run from the repository's root."
            )
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise ParamsError(f"Expected YAML in {path}, found text that does not parse: {error}.") from None
        except ValidationError as error:
            raise ParamsError(f"Expected valid parameters in {path}: {_complaints(error)}.") from None


def _complaints(error: ValidationError) -> str:
    """Every complaint in one line: key, reason, value."""
    return "; ".join(map(_complaint, error.errors()))


def _complaint(row: ErrorDetails) -> str:
    """A reason of our own has the numbers in it, and its value would be a whole section."""
    key = ".".join(map(str, row["loc"]))
    if row["type"] == "value_error":
        return f"{key}: {row['ctx']['error']}" if key else str(row["ctx"]["error"])
    return f"{key}: {row['msg'].lower()}, found {str(row['input'])[:60]!r}"
