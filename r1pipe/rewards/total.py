"""The rewards together: what they read of a sample, and their weighted sum as TRL forms it.

Shape suffixes: N completions, R rewards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1pipe.datasets.sample import Sample
from r1pipe.geometry import Box
from r1pipe.params.run import Think
from r1pipe.params.training import RewardWeights
from r1pipe.rewards.brevity import LengthReward, repetition_reward
from r1pipe.rewards.check import Reward, self_check
from r1pipe.rewards.completion import Completion
from r1pipe.rewards.exact import exact_match_reward
from r1pipe.rewards.format import format_reward
from r1pipe.rewards.perception import perception_reward
from r1pipe.rewards.semantic import SemanticReward, TextEncoder

Floats = NDArray[np.float64]


def build_rewards(text_encoder: TextEncoder, weights: RewardWeights, *, length_limit: int) -> dict[str, Reward]:
    """The three rewards and the optional ones that have a weight, by name, checked.

    Args:
        text_encoder: of the semantic reward.
        weights: 0 leaves an optional reward out.
        length_limit: words, of the length reward.

    Raises:
        GateError: if one of them cannot tell a cheat from a perfect completion.
    """
    rewards: dict[str, Reward] = {
        "format": format_reward,
        "perception": perception_reward,
        "semantic": SemanticReward(text_encoder),
    }
    optional: dict[str, Reward] = {
        "exact_match": exact_match_reward,
        "length": LengthReward(length_limit),
        "repetition": repetition_reward,
    }
    rewards |= {name: reward for name, reward in optional.items() if weights.model_dump()[name] > 0}
    self_check(rewards)
    return rewards


def reward_columns(sample: Sample, objects: Mapping[str, Box], think: Think) -> dict[str, Any]:
    """What the rewards read beside a completion: a grounding sample asks for boxes, any other for words.

    Args:
        sample: what was asked.
        objects: the scene's detected boxes by identifier.
        think: which tasks reason first.
    """
    asks_boxes = sample.task == "grounding"
    return {
        "think": think.on(sample.task),
        "target_boxes": [list(box) for box in sample.boxes] if asks_boxes else None,
        "references": list(sample.answers) if sample.answers and not asks_boxes else None,
        "objects": {name: list(box) for name, box in objects.items()},
    }


def score(
    rewards: Mapping[str, Reward], completions: Sequence[Completion], columns: Sequence[Mapping[str, Any]]
) -> dict[str, Floats]:
    """Each reward of each completion, `(N,)` by name; NaN where it does not apply."""
    given = {name: [row[name] for row in columns] for name in columns[0]}
    return {name: np.array(reward(completions, **given), dtype=np.float64) for name, reward in rewards.items()}


def total(scores: Mapping[str, Floats], weights: RewardWeights) -> Floats:
    """The weighted sum of each completion's rewards, `(N,)`; one that does not apply adds nothing."""
    weight_R = [weights.model_dump()[name] for name in scores]
    weighted_RN = np.stack([weight * score_N for weight, score_N in zip(weight_R, scores.values(), strict=True)])
    return np.asarray(np.nansum(weighted_RN, axis=0))
