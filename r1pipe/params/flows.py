"""The section `flows`: what Prefect bounds, and when `nightly` promotes."""

from typing import Annotated, Literal

from pydantic import Field

from r1pipe.params.section import Count, NonNegative, Positive, Section


class Timeouts(Section):
    """Seconds after which a stage is stopped, by where it runs; training keeps the step that it is stopped behind."""

    cpu: Positive
    gpu: Positive


class Gate(Section):
    """What a tuned model has to beat the promoted one by: the paired 95 % interval of its gain lies above `min_gain`."""

    task: Literal["qa", "grounding", "captioning"]
    metric: str
    """As `r1pipe compare` names it."""

    min_gain: NonNegative
    """On the metric's scale, 0 to 100."""


class Flows(Section):
    """How flows run the stages; nothing that a stage computes depends on it."""

    timeout_s: Timeouts
    lost_after_s: Annotated[float, Field(ge=60)]
    """A run without a heartbeat for so long counts as crashed; a heartbeat comes every 30 seconds."""

    takeovers: Annotated[int, Field(ge=0)]
    """How often a stage whose worker was lost is given to another."""

    network_attempts: Count
    """Of fetching the commit, and of pulling and pushing data."""

    network_wait_s: Positive
    """Between two such attempts."""

    checkout_wait_s: NonNegative
    """How long a run waits for another one on the same checkout; then it is refused."""

    gpu_stages: Count
    """GPU stages that run at once, over all flows of a server."""

    gate: Gate
