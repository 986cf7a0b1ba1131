"""What a completion is worth: one number, or None where the reward does not apply. TRL calls these as they are."""

from r1pipe.rewards.brevity import LengthReward, repetition_reward
from r1pipe.rewards.exact import exact_match_reward
from r1pipe.rewards.format import FormatReward
from r1pipe.rewards.perception import perception_reward
from r1pipe.rewards.reasoning import reasoning_reward
from r1pipe.rewards.semantic import SemanticReward

__all__ = [
    "FormatReward",
    "LengthReward",
    "SemanticReward",
    "exact_match_reward",
    "perception_reward",
    "reasoning_reward",
    "repetition_reward",
]
