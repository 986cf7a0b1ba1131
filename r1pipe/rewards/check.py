"""Before training: can each reward tell a perfect completion from an empty and a cheating one?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
_QUESTION = "where is the thing next to <obj_001>?"
_THINKING = "chair <obj_000> red"
_PERFECT = compose(_THINKING, "red <obj_000>")


class _Trial(NamedTuple):
    """What one reward is tried on."""

    perfect: str
    wrong: Mapping[str, str]
    """By name, what this reward must notice beside broken grammar."""


_SWAPPED = "<box>0.5,0.5,1,-1,-1,-1</box>"
_TRIALS = {
    "format": _Trial(_PERFECT, {}),
    "semantic": _Trial(
        compose(_THINKING, "red"),
        {"wrong answer": compose(_THINKING, "blue"), "copied question": compose(_THINKING, _QUESTION)},
    ),
    "perception": _Trial(
        compose(_THINKING, "<obj_000>"),
        {
            "wrong object": compose(_THINKING, "<obj_001>"),
            "every object": compose(_THINKING, "<obj_000> <obj_001>"),
            "copied question": compose(_THINKING, _QUESTION),
            "swapped corners": compose(_THINKING, _SWAPPED),
            "flood of boxes": compose(_THINKING, "<obj_000>" + "<box>0,0,0.5,9,9,9</box>" * 100),
        },
    ),
    "exact_match": _Trial(
        compose(_THINKING, "red"),
        {"wrong answer": compose(_THINKING, "blue"), "every answer": compose(_THINKING, "red or blue")},
    ),
    "length": _Trial(_PERFECT, {"endless": compose("so " * 100_000, "red")}),
    "repetition": _Trial(_PERFECT, {"repeated": compose(_THINKING * 20, "red")}),
}
"""By reward: a perfect completion for the sample, and wrong ones."""


def self_check(rewards: Mapping[str, Reward]) -> None:
    """Score cheats against one sample; every reward must rate each below the perfect completion.

    Raises:
        GateError: naming the reward, the cheat and both values.
    """
    for name, reward in rewards.items():
        trial = _TRIALS[name]
        perfect = _score(reward, trial.perfect)
        for cheat, text in {**_broken(trial.perfect), **trial.wrong}.items():
            if (value := _score(reward, text)) >= perfect:
                raise GateError(
                    f"Expected the {name} reward of '{cheat}' below {perfect:.3f}, a perfect completion's, found {value:.3f}."
                )


def _broken(perfect: str) -> dict[str, str]:
    """What the literature saw models do for a reward of form, by name."""
    answer = perfect.partition("<answer>")[2].removesuffix("</answer>")
    return {
        "empty": "",
        "empty tags": "<think></think><answer></answer>",
        "doubled tags": perfect + perfect,
        "answer inside the thinking": f"<think><answer>{answer}</answer></think>",
        "text after the answer": f"{perfect} {answer}",
    }


def _score(reward: Reward, text: str) -> float:
    (value,) = reward(completions=[[{"role": "assistant", "content": text}]], **_SAMPLE)
    return -1.0 if value is None else value
