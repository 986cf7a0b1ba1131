"""Does the completion say no more than it needs? Two rewards that are off by default."""

from collections.abc import Sequence
from typing import Any

from r1pipe.response import Response
from r1pipe.rewards.completion import Completion, responses


class LengthReward:
    """1.0 up to a number of words, falling to 0 at twice as many; 0 where the completion breaks the grammar.

    A soft limit, so that what is a little too long is still told from what is far too long (DAPO, Eq. 13).
    """

    __name__ = "length_reward"

    def __init__(self, limit: int) -> None:
        """`limit` is in words, thinking and answer together."""
        self.limit = limit

    def __call__(self, completions: Sequence[Completion], *, think: Sequence[bool], **_: Any) -> list[float | None]:
        """0..1 a completion."""
        return [0.0 if said is None else self._brevity(len(_words(said))) for said in responses(completions, think)]

    def _brevity(self, num_words: int) -> float:
        return min(1.0, max(0.0, 2.0 - num_words / self.limit))


def repetition_reward(completions: Sequence[Completion], *, think: Sequence[bool], **_: Any) -> list[float | None]:
    """The share of different ones among the runs of three words: 1.0 where nothing is said twice, 0 without grammar."""
    return [0.0 if said is None else _variety(_words(said)) for said in responses(completions, think)]


def _variety(words: Sequence[str]) -> float:
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) / len(runs) if runs else 1.0


def _words(said: Response) -> list[str]:
    return f"{said.thinking} {said.answer}".lower().split()
