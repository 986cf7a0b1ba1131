"""The sections of `package` and `serve`."""

from typing import Annotated

from pydantic import Field

from r1pipe.params.section import Count, Section


class Package(Section):
    """Stage `package`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """What the Bento is called."""

    num_rooms: Count
    """Rooms of the evaluated split that travel with the model, the first by id."""

    merge_adapters: bool
    """Write adapters into the language model, all of it float32 then; else they travel beside it."""


class Serve(Section):
    """What a server takes on at once: `bentoml serve`."""

    max_batch_size: Count
    """Questions a forward pass, at most."""

    max_waiting: Count
    """Further questions that wait; one more is told to come again later."""

    max_prompt_tokens: Count
    """Of question and history together."""

    timeout_s: Annotated[float, Field(gt=0)]
    """From the question to the end of its answer."""
