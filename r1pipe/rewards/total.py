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
from r1pipe.rewards.format import FormatReward
from r1pipe.rewards.perception import perception_reward
from r1pipe.rewards.reasoning import reasoning_reward
from r1pipe.rewards.semantic import SemanticReward, TextEncoder

Floats = NDArray[np.float64]


def build_rewards(
    text_encoder: TextEncoder,
    weights: RewardWeights,
    *,
    length_limit: int,
    least_margin: float,
    min_think_words: int,
    semantic_baseline: float,
) -> dict[str, Reward]:
    """The three rewards and the optional ones that have a weight, by name, checked.

    Args:
        text_encoder: of the semantic reward.
        weights: 0 leaves an optional reward out.
        length_limit: words, of the length reward.
        least_margin: by how much each reward must rate a perfect completion above a cheat.
        min_think_words: of the format reward; 0 for no floor.
        semantic_baseline: the cosine, in [0, 1), at which the semantic reward begins.

    Raises:
        GateError: if one of them cannot tell a cheat from a perfect completion by the margin.
    """
    rewards: dict[str, Reward] = {
        "format": FormatReward(min_think_words),
        "perception": perception_reward,
        "semantic": SemanticReward(text_encoder, baseline=semantic_baseline),
    }
    optional: dict[str, Reward] = {
        "exact_match": exact_match_reward,
        "length": LengthReward(length_limit),
        "repetition": repetition_reward,
        "reasoning": reasoning_reward,
    }
    rewards |= {name: reward for name, reward in optional.items() if weights.model_dump()[name] > 0}
    self_check(rewards, least_margin=least_margin, min_think_words=min_think_words)
    return rewards


def reward_columns(sample: Sample, objects: Mapping[str, Box], think: Think) -> dict[str, Any]:
    """What the rewards read beside a completion: a grounding sample asks for boxes, any other for words.

    Whatever is asked for, the reasoning can name the sample's objects.

    Args:
        sample: what was asked.
        objects: the scene's detected boxes by identifier.
        think: which tasks reason first.
    """
    asks_boxes, thinks = sample.task == "grounding", think.on(sample.task)
    boxes = [list(box) for box in sample.boxes]
    return {
        "think": thinks,
        "target_boxes": boxes if asks_boxes else None,
        "reasoning_boxes": boxes if boxes and thinks else None,
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
