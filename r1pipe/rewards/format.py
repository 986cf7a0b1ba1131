"""Does the completion follow the answer grammar? (paper, section 3.2; the grammar is `response.parse`)."""

from collections.abc import Sequence
from typing import Any

from r1pipe.rewards.completion import Completion, responses


def format_reward(completions: Sequence[Completion], *, think: Sequence[bool], **_: Any) -> list[float | None]:
    """1.0 where the completion parses under its task's grammar, else 0.0.

    >>> format_reward([[{"role": "assistant", "content": "<answer>red</answer>"}]], think=[False])
    [1.0]
    """
    return [float(response is not None) for response in responses(completions, think)]
