"""What a teacher is: somebody who thinks aloud about a question, or refuses with a reason."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from r1pipe.datasets import Sample
from r1pipe.scenes import Scene

SceneOf = Callable[[str], Scene]
"""A scene by its id."""


class Thought(NamedTuple):
    """What a teacher wrote about a sample."""

    text: str
    """Reasoning and answer, as written; the filters of `validate` judge it."""

    second_answer: str | None
    """The answer that a second pass drew from the reasoning alone; None where there was none."""

    fault: str | None = None
    """What was done wrong on purpose, so that the filters can be measured."""

    prompt: str | None = None
    """The version of the prompt's templates; None where there is no prompt."""


class Refusal(NamedTuple):
    """Why there is no thought."""

    reason: str
    """`blocked`, `truncated`, `empty`, `oversized`, `malformed`, `refused`, `unavailable` (of a service), `contradiction`,
    `not recorded`."""

    detail: str


class Teacher(Protocol):
    """A source of chains of thought."""

    @property
    def name(self) -> str:
        """What a draft names as its teacher."""

    @property
    def status(self) -> str:
        """What it took so far, for a progress line; empty where it takes nothing."""

    async def prepare(self, samples: Callable[[], Iterable[Sample]], scene: SceneOf) -> None:
        """Do ahead what is better done for all samples at once; `samples` begins anew at each call."""

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """Reason about the question and answer it."""

    async def close(self) -> None:
        """Let go of connections and files."""
