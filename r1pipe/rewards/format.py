"""Does the completion follow the answer grammar? (paper, section 3.2; the grammar is `response.parse`)."""

from collections.abc import Sequence
from typing import Any

from r1pipe.response import Response
from r1pipe.rewards.completion import Completion, responses


class FormatReward:
    """1.0 where the completion parses under its task's grammar and does not skimp its thinking, else 0.0.

    >>> FormatReward(min_think_words=0)([[{"role": "assistant", "content": "<answer>red</answer>"}]], think=[False])
    [1.0]
    """

    __name__ = "format_reward"

    def __init__(self, min_think_words: int) -> None:
        """`min_think_words`: the fewest words of thinking, where the task thinks; 0 asks only that there is some."""
        self.min_think_words = min_think_words

    def __call__(self, completions: Sequence[Completion], *, think: Sequence[bool], **_: Any) -> list[float | None]:
        """0 or 1 a completion."""
        rows = zip(responses(completions, think), think, strict=True)
        return [float(said is not None and (not thinks or self._thinks_enough(said))) for said, thinks in rows]

    def _thinks_enough(self, said: Response) -> bool:
        return len(said.thinking.split()) >= self.min_think_words
