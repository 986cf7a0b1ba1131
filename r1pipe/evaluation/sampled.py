"""What GRPO maximises, on samples that no training has seen: the rewards of completions sampled as GRPO samples them.

Shape suffixes: N questions, S completions of all questions.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from r1pipe.evaluation.tasks import Features, Questions, Row, chosen
from r1pipe.models.r1.answering import Answerer, Kept, Request
from r1pipe.params.evaluation import Evaluate
from r1pipe.params.run import Think
from r1pipe.params.training import RewardWeights
from r1pipe.rewards.check import Reward
from r1pipe.rewards.total import reward_columns, score, total


class RewardRules(NamedTuple):
    """How completions are sampled and rewarded: GRPO's own settings."""

    rewards: Mapping[str, Reward]
    weights: RewardWeights
    temperature: float


class Rewarded(NamedTuple):
    """A question with what the rewards read of its sample."""

    id: str
    request: Request
    columns: Mapping[str, Any]


def rewarded_questions(
    asked: Iterable[Questions], features: Features, think: Think, limit: int | None
) -> list[Rewarded]:
    """The questions of every task that has rewards, at most `limit` a task, chosen by a hash of their ids."""
    boxes = {scene_id: found.boxes() for scene_id, found in features.items()}
    rows = []
    for questions in (one for one in asked if one.samples):
        kept = chosen([sample.id for sample in questions.samples], limit)
        rows += [
            Rewarded(sample.id, request, reward_columns(sample, boxes[sample.scene_id], think))
            for request, sample in zip(questions.requests, questions.samples, strict=True)
            if sample.id in kept
        ]
    return rows


def sampled_rewards(
    answerer: Answerer,
    questions: Sequence[Rewarded],
    rules: RewardRules,
    kept: Kept,
    *,
    settings: Evaluate,
    think: Think,
    blind: bool,
    seed: int,
) -> list[Row]:
    """A row a question: `id`, and by reward and as `total` the mean over its completions, None where one does not apply."""
    times = settings.reward_completions
    repeated = [question for question in questions for _ in range(times)]
    torch.manual_seed(seed)  # every arm draws alike
    completions = answerer.complete(
        [question.request for question in repeated],
        think=think,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        blind=blind,
        temperature=rules.temperature,
        kept=kept,
    )
    turns = [[{"role": "assistant", "content": text}] for text in completions]
    scores_S = score(rules.rewards, turns, [question.columns for question in repeated])
    means_N = {name: score_S.reshape(-1, times).mean(axis=1) for name, score_S in scores_S.items()}
    means_N["total"] = total(means_N, rules.weights)
    return [
        {"id": question.id} | {name: _number(mean_N[i]) for name, mean_N in means_N.items()}
        for i, question in enumerate(questions)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
