"""What a teacher is: somebody who thinks aloud about a question, or refuses with a reason."""

from typing import NamedTuple, Protocol

from r1pipe.datasets import Sample
from r1pipe.scenes import Scene


class Thought(NamedTuple):
    """What a teacher wrote about a sample."""

    text: str
    """Reasoning and answer, as written; the filters of `validate` judge it."""

    second_answer: str | None
    """The answer that a second pass drew from the reasoning alone; None where there was none."""

    fault: str | None = None
    """What was done wrong on purpose, so that the filters can be measured."""


class Refusal(NamedTuple):
    """Why there is no thought."""

    reason: str
    """`blocked`, `truncated`, `empty`, `contradiction`, `not recorded`."""

    detail: str


class Teacher(Protocol):
    """A source of chains of thought."""

    @property
    def name(self) -> str:
        """What a draft names as its teacher."""

    async def think(self, sample: Sample, scene: Scene) -> Thought | Refusal:
        """Reason about the question and answer it."""

    async def close(self) -> None:
        """Let go of connections and files."""
