"""Before training: can each reward tell a perfect completion from an empty and a cheating one?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from r1pipe.errors import GateError
from r1pipe.response import compose

Reward = Callable[..., list[float | None]]

_HERE, _ELSEWHERE = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [5.0, 5.0, 0.5, 1.0, 1.0, 1.0]
_SAMPLE: dict[str, Sequence[Any]] = {
    "references": [["red"]],
    "target_boxes": [[_HERE]],
    "objects": [{"<obj_000>": _HERE, "<obj_001>": _ELSEWHERE}],
    "think": [True],
}
_ANSWERS = {"format": ("red", None), "semantic": ("red", "blue"), "perception": ("<obj_000>", "<obj_001>")}
"""By reward: the right answer to the sample, and a wrong one that it must notice."""


def self_check(rewards: Mapping[str, Reward]) -> None:
    """Score cheats against one sample; every reward must rate each below the perfect completion.

    Raises:
        GateError: naming the reward, the cheat and both values.
    """
    for name, reward in rewards.items():
        right, wrong = _ANSWERS[name]
        perfect = _score(reward, compose("chair <obj_000> red", right))
        for cheat, text in _cheats(right, wrong):
            if (value := _score(reward, text)) >= perfect:
                raise GateError(
                    f"Expected the {name} reward of '{cheat}' below {perfect:.3f}, a perfect completion's, found {value:.3f}."
                )


def _cheats(right: str, wrong: str | None) -> Iterator[tuple[str, str]]:
    """What the literature saw models do for a reward, by name."""
    perfect = compose("chair <obj_000> red", right)
    yield "empty", ""
    yield "empty tags", "<think></think><answer></answer>"
    yield "doubled tags", perfect + perfect
    yield "answer inside the thinking", f"<think><answer>{right}</answer></think>"
    yield "text after the answer", f"{perfect} {right}"
    if wrong is not None:
        yield "wrong answer", compose("chair <obj_000> red", wrong)
    if right.startswith("<obj"):
        yield "every object", compose("all", "<obj_000> <obj_001>")


def _score(reward: Reward, text: str) -> float:
    (value,) = reward(completions=[[{"role": "assistant", "content": text}]], **_SAMPLE)
    return -1.0 if value is None else value
