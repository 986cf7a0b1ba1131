"""The five arms of the experiment, measured alike: SFT, GRPO, two SFT->SFT controls, and GRPO that sees nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from r1pipe.evaluation.journal import Journal
from r1pipe.evaluation.looking import TUNED, look_row
from r1pipe.evaluation.sampled import RewardRules, rewarded_questions, sampled_rewards
from r1pipe.evaluation.scoring import measure, reward_means
from r1pipe.evaluation.tasks import Features, Questions, Row, asked_as, predictions
from r1pipe.files import remove_drafts, write_jsonl
from r1pipe.metrics.intervals import Interval, intervals, mean
from r1pipe.models.r1.answering import Answerer, Kept
from r1pipe.params.evaluation import Evaluate
from r1pipe.params.run import Think
from r1pipe.params.section import EvaluatedTask
from r1pipe.response import parse

Metrics = dict[str, dict[str, dict[str, dict[str, float]]]]
"""`{arm: {task: {metric: {"value", "low", "high", "n"}}}}`, 0..100; beside the tasks stands `reward`, see `sampled`."""


class Arm(NamedTuple):
    """A model under a condition."""

    name: str
    model: str
    """Which model answers: `sft`, `grpo`, `control_prompts` or `control_sequences`."""

    blind: bool
    """Whether every scene is zeroed."""


ARMS = (
    Arm("sft", "sft", False),
    Arm("grpo", "grpo", False),
    Arm("blind", "grpo", True),
    Arm("control_prompts", "control_prompts", False),
    Arm("control_sequences", "control_sequences", False),
)
"""In the order of their runs: neighbours of one model share its loading."""


def evaluate(
    load: Callable[[str], Answerer],
    asked: Mapping[EvaluatedTask, Questions],
    features: Features,
    *,
    rules: RewardRules,
    settings: Evaluate,
    think: Think,
    seed: int,
    work: Path,
    folder: Path,
) -> Metrics:
    """Ask every arm everything, write predictions and references into `folder`, and score them.

    Args:
        load: the model of a name.
        asked: the questions by task.
        features: the scenes by id.
        rules: how completions are sampled and rewarded.
        settings: batch size, tokens, resamples.
        think: which tasks reason first.
        seed: of the sampling and of the bootstrap.
        work: an existing folder that an interrupted call finds again: batches that it holds are not generated again.
        folder: gets `references-<task>.jsonl` and `<arm>-<task>.jsonl`, as `r1pipe score` reads them, and
            `<arm>-reward.jsonl`, the mean rewards of each question, and `views-grpo.jsonl`, see `looking`; what an
            interrupted call has left there is written anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_drafts(folder)
    for task, questions in asked.items():
        write_jsonl(folder / f"references-{task}.jsonl", questions.references)
    rewarded = rewarded_questions(asked.values(), features, think, settings.reward_samples)
    metrics: Metrics = {}
    loaded, answerer = "", None
    for arm in ARMS:
        if answerer is None or loaded != arm.model:
            answerer, loaded = load(arm.model), arm.model
        metrics[arm.name] = {}
        for task, questions in asked.items():
            kept = Journal(work / f"{arm.name}-{task}.jsonl", answerer.device)
            rows = _ask(answerer, questions, task, features, kept, settings=settings, think=think, blind=arm.blind)
            write_jsonl(folder / f"{arm.name}-{task}.jsonl", rows)
            metrics[arm.name][task] = _score(task, rows, questions.references, think, settings.bootstrap, seed)
        if arm.name == TUNED:
            write_jsonl(folder / f"views-{arm.name}.jsonl", _looks(answerer, asked))
        if not rewarded:
            continue
        kept = Journal(work / f"{arm.name}-reward.jsonl", answerer.device)
        rows = sampled_rewards(
            answerer, rewarded, rules, kept, settings=settings, think=think, blind=arm.blind, seed=seed
        )
        write_jsonl(folder / f"{arm.name}-reward.jsonl", rows)
        means = intervals(reward_means(rows), resamples=settings.bootstrap, seed=seed)
        metrics[arm.name]["reward"] = {name: _rounded(item) for name, item in means.items()}
    return {name: metrics[name] for name in ("sft", "grpo", "control_prompts", "control_sequences", "blind")}


def _ask(
    answerer: Answerer,
    asked: Questions,
    task: EvaluatedTask,
    features: Features,
    kept: Kept,
    *,
    settings: Evaluate,
    think: Think,
    blind: bool,
) -> list[Row]:
    """A prediction row a request, each with the completion it was read from."""
    completions = answerer.complete(
        asked.requests,
        think=think,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        blind=blind,
        kept=kept,
    )
    responses = [parse(text, think=think.on(asked_as(task))) for text in completions]
    rows = predictions(task, asked, responses, features)
    return [row | {"completion": text} for row, text in zip(rows, completions, strict=True)]


def _looks(answerer: Answerer, asked: Mapping[EvaluatedTask, Questions]) -> list[Row]:
    """Which views are chosen for every question."""
    requests = [request for questions in asked.values() for request in questions.requests]
    return [look_row(r.task, r.scene_id, r.question, answerer.views(r)) for r in requests]


def _score(
    task: EvaluatedTask, rows: Sequence[Row], references: Sequence[Row], think: Think, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """The task's metrics, and `format`: the share of completions that follow the grammar."""
    follows = [parse(row["completion"], think=think.on(asked_as(task))) is not None for row in rows]
    form = {"format": mean(np.array(follows, dtype=np.float64))} if rows else {}
    found: dict[str, Interval] = intervals(measure(task, rows, references), resamples=resamples, seed=seed)
    found |= intervals(form, resamples=resamples, seed=seed) if form else {}
    return {name: _rounded(item) for name, item in found.items()}


def _rounded(item: Interval) -> dict[str, float]:
    # Four decimals: what a sum in another order changes stays out of the file.
    return {"value": round(item.value, 4), "low": round(item.low, 4), "high": round(item.high, 4), "n": item.n}
