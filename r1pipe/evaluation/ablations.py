"""Ablations: what a part of the model is worth, as the change that its absence makes, with a paired interval."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypedDict

from r1pipe.evaluation.scoring import measure
from r1pipe.evaluation.tasks import EvaluatedTask
from r1pipe.metrics.intervals import differences, intervals

Rows = Sequence[Mapping[str, Any]]


class Column(NamedTuple):
    """A number that an ablation reports."""

    title: str
    task: EvaluatedTask
    metric: str


class Ablation(NamedTuple):
    """Variants of the pipeline that differ in one thing."""

    title: str
    arm: str
    """The arm whose predictions are compared."""

    variants: Mapping[str, Sequence[str]]
    """What each variant changes, as overrides of parameters; the last one changes nothing, the others are compared with it."""

    @property
    def shared(self) -> Sequence[str]:
        """Overrides of every variant but the last, which do not touch the arm: they spare what is not looked at."""
        return ("grpo.max_steps=1",) if self.arm == "sft" else ()


COLUMNS = (
    Column("exact match", "qa", "em"),
    Column("Acc@0.25", "grounding", "acc_25"),
    Column("CIDEr@0.5", "captioning", "cider_50"),
)
"""One number a task."""

FIXED_WEIGHTS = ((0.3, 0.6, 0.4), (0.3, 0.4, 0.6), (0.4, 0.5, 0.5), (0.2, 0.5, 0.5), (0.3, 0.5, 0.5))
"""w_t, w_c and w_clip of the paper's Table 9."""

RANKS = (4, 8, 12, 16, 32)
"""Of the paper's ablation; alpha stays its recipe's 16."""

REWARDS = ("format", "perception", "semantic")

ABLATIONS = {
    "modalities": Ablation(
        title="What the model sees (the shape of the paper's Table 10)",
        arm="sft",
        variants={
            "text+image": ("model.modalities=[image]",),
            "text+image+depth": ("model.modalities=[image,depth]",),
            "text+image+points": ("model.modalities=[image,points]",),
            "full": (),
        },
    ),
    "views": Ablation(
        title="How views are chosen (the shape of the paper's Table 8)",
        arm="sft",
        variants={
            **{name: (f"model.view_strategy={name}",) for name in ("all", "horizontal", "bottom", "random")},
            "learnt": (),
        },
    ),
    "view-weights": Ablation(
        title="Weights of the view scores, fixed or learnt (the shape of the paper's Table 9)",
        arm="sft",
        variants={
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
    "rewards": Ablation(
        title="Which rewards reinforce (the shape of the paper's Table 7)",
        arm="grpo",
        variants={
            " + ".join(kept): tuple(f"grpo.reward_weights.{name}=0.0" for name in REWARDS if name not in kept)
            for count in (1, 2, 3)
            for kept in combinations(REWARDS, count)
        },
    ),
    "think": Ablation(
        title="Which tasks reason before they answer",
        arm="grpo",
        variants={
            "none": tuple(f"think.{task}=false" for task in ("qa", "situated", "grounding", "captioning")),
            "all but grounding": ("think.grounding=false",),
            "all but captioning": ("think.captioning=false",),
            "all": (),
        },
    ),
    "lora-rank": Ablation(
        title="How much of the model GRPO moves (the shape of the paper's LoRA table)",
        arm="grpo",
        variants={
            **{
                f"rank {rank}": (f"grpo.lora={{r: {rank}, alpha: 16, dropout: 0.0, last_blocks: 2}}",) for rank in RANKS
            },
            "all weights": (),
        },
    ),
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
    """What one variant's arm said, by task."""

    rows: Mapping[EvaluatedTask, Rows]
    references: Mapping[EvaluatedTask, Rows]


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
    for title, task, metric in COLUMNS:
        references = found[last].references[task]
        measured = {name: {metric: measure(task, found[name].rows[task], references)[metric]} for name in results}
        for name, ours in measured.items():
            value = intervals(ours, resamples=resamples, seed=seed)[metric]
            change = differences(measured[last], ours, resamples=resamples, seed=seed)[metric]
            results[name][title] = Cell(
                value=value.value, low=value.low, high=value.high,
                change=change.value, change_low=change.low, change_high=change.high, n=value.n,
            )  # fmt: skip
    return results
