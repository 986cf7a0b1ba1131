"""Ablations: what a part of the model is worth, as the change that its absence makes, with a paired interval."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, Self, TypedDict

from r1pipe.evaluation.scoring import measure, reward_means
from r1pipe.evaluation.table import ACC_25, CIDER_50, EXACT_MATCH, REWARD, Column
from r1pipe.metrics.intervals import differences, intervals
from r1pipe.metrics.ngrams import Measures

Rows = Sequence[Mapping[str, Any]]


class Variant(NamedTuple):
    """A row of the table."""

    arm: str
    """Whose predictions it shows."""

    runs: tuple[str, ...]
    """Of which runs; the samples of several are pooled."""


class Ablation(NamedTuple):
    """Runs of the pipeline that differ in one thing, and what is read from them."""

    title: str
    runs: Mapping[str, Sequence[str]]
    """What each run changes, as overrides of parameters; the last one changes nothing."""

    variants: Mapping[str, Variant]
    """The others are compared with the last one."""

    columns: Sequence[Column] = (EXACT_MATCH, ACC_25, CIDER_50)
    """One number a task; mean reward only where every variant has the same weights of the rewards."""

    @classmethod
    def of(cls, title: str, arm: str, runs: Mapping[str, Sequence[str]]) -> Self:
        """One that compares an arm from run to run."""
        return cls(f"{title}, arm {arm}", runs, {name: Variant(arm, (name,)) for name in runs})

    @property
    def shared(self) -> Sequence[str]:
        """Overrides of every run but the last, which do not touch what is compared: they spare what is not looked at."""
        return ("grpo.max_steps=1",) if {variant.arm for variant in self.variants.values()} == {"sft"} else ()


FIXED_WEIGHTS = ((0.3, 0.6, 0.4), (0.3, 0.4, 0.6), (0.4, 0.5, 0.5), (0.2, 0.5, 0.5), (0.3, 0.5, 0.5))
"""w_t, w_c and w_clip of the paper's Table 9."""

RANKS = (4, 8, 12, 16, 32)
"""Of the paper's ablation; alpha stays its recipe's 16."""

REWARDS = ("format", "perception", "semantic")

WITH_REWARD = (REWARD, EXACT_MATCH, ACC_25, CIDER_50)
"""For variants that are reinforced by the same rewards."""

SEEDS = {"seed 1": ("base.seed=1",), "seed 2": ("base.seed=2",), "seed 0": ()}
"""Other rooms, other weights to start from, other batches."""

ABLATIONS = {
    "seeds": Ablation(
        title=f"SFT, more SFT and GRPO over {len(SEEDS)} seeds, all their samples pooled",
        runs=SEEDS,
        variants={arm: Variant(arm, tuple(SEEDS)) for arm in ("sft", "control_prompts", "control_sequences", "grpo")},
        columns=WITH_REWARD,
    ),
    "modalities": Ablation.of(
        title="What the model sees (the shape of the paper's Table 10)",
        arm="sft",
        runs={
            "text+image": ("model.modalities=[image]",),
            "text+image+depth": ("model.modalities=[image,depth]",),
            "text+image+points": ("model.modalities=[image,points]",),
            "full": (),
        },
    ),
    "views": Ablation.of(
        title="How views are chosen (the shape of the paper's Table 8)",
        arm="sft",
        runs={
            **{name: (f"model.view_strategy={name}",) for name in ("all", "horizontal", "bottom", "random")},
            "learnt": (),
        },
    ),
    "view-weights": Ablation.of(
        title="Weights of the view scores, fixed or learnt (the shape of the paper's Table 9)",
        arm="sft",
        runs={
            **{
                f"w_t {text:g}, w_c {image:g}, w_clip {clip:g}": (
                    "model.view_strategy=fixed",
                    f"model.view_weights=[{text:g},{image:g},{clip:g}]",
                )
                for text, image, clip in FIXED_WEIGHTS
            },
            "learnt": (),
        },
    ),
    "rewards": Ablation.of(
        title="Which rewards reinforce (the shape of the paper's Table 7)",
        arm="grpo",
        runs={
            " + ".join(kept): tuple(f"grpo.reward_weights.{name}=0.0" for name in REWARDS if name not in kept)
            for count in (1, 2, 3)
            for kept in combinations(REWARDS, count)
        },
    ),
    "think": Ablation.of(
        title="Which tasks reason before they answer",
        arm="grpo",
        runs={
            "none": tuple(f"think.{task}=false" for task in ("qa", "situated", "grounding", "captioning")),
            "all but grounding": ("think.grounding=false",),
            "all but captioning": ("think.captioning=false",),
            "all": (),
        },
    ),
    "lora-rank": Ablation.of(
        title="How much of the model GRPO moves (the shape of the paper's LoRA table)",
        arm="grpo",
        runs={
            **{
                f"rank {rank}": (
                    f"grpo.lora={{r: {rank}, alpha: 16, dropout: 0.0, last_blocks: 2}}",
                    "grpo.learning_rates.gains=null",
                )
                for rank in RANKS
            },
            "all weights": (),
        },
    )._replace(columns=WITH_REWARD),
}


class Cell(TypedDict):
    """A metric of a variant, 0..100, and how far it is from the full model's with a paired 95 % interval."""

    value: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    n: int


Results = dict[str, dict[str, Cell]]
"""By variant and column title."""


class Predictions(NamedTuple):
    """What one variant said, by the task of a column."""

    rows: Mapping[str, Rows]
    references: Mapping[str, Rows]
    """None for `reward`: its rows are scores already."""


def pooled(runs: Sequence[Predictions]) -> Predictions:
    """The samples of several runs side by side: each has rooms and questions of its own, whatever they are called."""

    def pool(by_run: Sequence[Mapping[str, Rows]]) -> dict[str, Rows]:
        return {
            task: [_of_run(run, row) for run, found in enumerate(by_run) for row in found[task]] for task in by_run[0]
        }

    return Predictions(pool([run.rows for run in runs]), pool([run.references for run in runs]))


def _of_run(run: int, row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, **{key: f"{run}/{row[key]}" for key in ("id", "scene_id") if key in row}}


def compare(ablation: Ablation, found: Mapping[str, Predictions], *, resamples: int, seed: int) -> Results:
    """Every variant beside the last, sample by sample.

    Args:
        ablation: whose variants these are.
        found: what each variant said.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: if variants answered other questions.
    """
    last = list(ablation.variants)[-1]
    results: Results = {name: {} for name in ablation.variants}
    for column in ablation.columns:
        measured = {name: _measured(column, found[name], found[last].references) for name in results}
        for name, ours in measured.items():
            value = intervals(ours, resamples=resamples, seed=seed)[column.metric]
            change = differences(measured[last], ours, resamples=resamples, seed=seed)[column.metric]
            results[name][column.title] = Cell(
                value=value.value, low=value.low, high=value.high,
                change=change.value, change_low=change.low, change_high=change.high, n=value.n,
            )  # fmt: skip
    return results


def _measured(column: Column, said: Predictions, references: Mapping[str, Rows]) -> Measures:
    rows = said.rows[column.task]
    every = reward_means(rows) if column.task == "reward" else measure(column.task, rows, references[column.task])
    return {column.metric: every[column.metric]}
