"""Before training: can each reward tell a perfect completion from an empty and a cheating one?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from r1pipe.errors import GateError
from r1pipe.response import compose
from r1pipe.rewards.semantic import SemanticReward

Reward = Callable[..., list[float | None]]

_HERE, _ELSEWHERE = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [5.0, 5.0, 0.5, 1.0, 1.0, 1.0]
_SAMPLE: dict[str, Sequence[Any]] = {
    "references": [["red"]],
    "target_boxes": [[_HERE]],
    "reasoning_boxes": [[_HERE]],
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
    "semantic": _Trial(compose(_THINKING, "red"), {"copied question": compose(_THINKING, _QUESTION)}),
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
    "reasoning": _Trial(
        compose(_THINKING, "red"),
        {
            "wrong object": compose("chair <obj_001> red", "red"),
            "every object": compose("chair <obj_000> <obj_001> red", "red"),
            "no object named": compose("chair red", "red <obj_000>"),
        },
    ),
}
"""By reward: a perfect completion for the sample, and wrong ones; that of the format reward depends on its floor."""

_PAIRS = (("red", "blue"), ("left", "right"), ("one", "two"))
"""A right answer and a wrong one; texts about them are alike, so encoders of texts tend to leave them close together."""


def self_check(rewards: Mapping[str, Reward], *, least_margin: float, min_think_words: int) -> None:
    """Score cheats against one sample; every reward must rate each well below the perfect completion.

    Args:
        rewards: by name.
        least_margin: between a perfect completion and a cheat.
        min_think_words: that the format reward asks for; 0 where it has no floor.

    Raises:
        GateError: naming the reward, the cheat and both values; or the text encoder and the words it cannot tell apart.
    """
    trials = {"format": _format_trial(min_think_words), **_TRIALS}
    for name, reward in rewards.items():
        if isinstance(reward, SemanticReward):
            _check_text_encoder(reward, least_margin)
        trial = trials[name]
        perfect = _score(reward, trial.perfect)
        for cheat, text in {**_broken(trial.perfect), **trial.wrong}.items():
            if (value := _score(reward, text)) > perfect - least_margin:
                raise GateError(
                    f"Expected the {name} reward of '{cheat}' at least {least_margin:g} below {perfect:.4f}, "
                    f"a perfect completion's, found {value:.4f}."
                )


def _format_trial(min_think_words: int) -> _Trial:
    """Without a floor, broken grammar is all there is to notice."""
    if min_think_words < 2:
        return _Trial(_PERFECT, {})
    return _Trial(
        compose("so " * min_think_words, "red"), {"too little thinking": compose("so " * (min_think_words - 1), "red")}
    )


def _check_text_encoder(reward: SemanticReward, least_margin: float) -> None:
    """Say that it is the encoder's fault where the semantic reward can tell no answers apart."""
    for right, wrong in _PAIRS:
        same, other = (_score(reward, compose(_THINKING, said), references=[[right]]) for said in (right, wrong))
        if other > same - least_margin:
            raise GateError(
                f"Expected the text encoder {type(reward.text_encoder).__name__} to tell '{right}' from '{wrong}' "
                f"by at least {least_margin:g} in the semantic reward, found {same:.4f} and {other:.4f}."
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


def _score(reward: Reward, text: str, **columns: Sequence[Any]) -> float:
    (value,) = reward(completions=[[{"role": "assistant", "content": text}]], **(_SAMPLE | columns))
    return -1.0 if value is None else value
