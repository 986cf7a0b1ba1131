"""The typed mirror of `params.yaml`: every number that a person may change.

No value has a default here: what a run used stands in `params.yaml`, where `dvc params diff` sees it.
"""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

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
    def _processes_share_the_batch(self) -> Self:
        batches = {
            "sft.batch_size": (self.sft, self.sft.batch_size),
            "grpo.batch_size": (self.grpo, self.grpo.batch_size),
            **{f"the batch of control_{name}": (self.sft, size) for name, size in control_batches(self.grpo).items()},
        }
        for name, (training, batch_size) in batches.items():
            at_once = self.launch.processes * min(training.device_batch_size or 1, batch_size)
            if batch_size % at_once:
                raise ValueError(
                    f"{name} ({batch_size}) must be a multiple of processes times device_batch_size ({at_once})"
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
    rows = [(".".join(map(str, row["loc"])), row["msg"].lower(), row["input"]) for row in error.errors()]
    return "; ".join(f"{key}: {reason}, found {str(value)[:60]!r}" for key, reason, value in rows)
