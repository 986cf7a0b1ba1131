"""What of the model is trained: its parts, at which learning rate each, and how far each has moved."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1pipe.errors import GateError
from r1pipe.models.r1 import R1ForConditionalGeneration
from r1pipe.params.training import Training

PROJECTORS = {
    "points": ("object_projector", "point_projector"),
    "image": ("view_projector",),
    "depth": ("depth_projector",),
}
"""By modality."""

SELECTOR, ROWS, ADAPTERS, LANGUAGE = "view_selector", "token_rows", "adapters", "language_model"

OF_SCENES = (*chain.from_iterable(PROJECTORS.values()), SELECTOR)
"""The modules that read scenes: whatever the settings, the model has them all."""

Movement = dict[str, dict[str, float]]
"""`{part: {"share", "norm", "learning_rate"}}`: the share of its weights that differ from where the stage started, the
norm of the change over that of the start, and the highest learning rate that it had."""


def trained_modules(model: R1ForConditionalGeneration) -> list[str]:
    """The modules that are trained in full beside adapters: those that the model's settings use."""
    config = model.config
    used = [name for modality in config.modalities for name in PROJECTORS[modality]]
    if chooses(model):
        used.append(SELECTOR)
    rows = {"input_rows": model.model.input_rows, "output_rows": model.output_rows}
    return used + [name for name, module in rows.items() if module is not None]


def idle_modules(model: R1ForConditionalGeneration) -> list[str]:
    """The modules that the model's settings leave nothing to learn."""
    used = trained_modules(model)
    return [name for name in OF_SCENES if name not in used]


def chooses(model: R1ForConditionalGeneration) -> bool:
    """Whether the selector's weights have something to learn."""
    return model.config.view_strategy == "learnt" and not {"image", "depth"}.isdisjoint(model.config.modalities)


@contextmanager
def only_projectors(model: R1ForConditionalGeneration) -> Iterator[Mapping[str, Tensor]]:
    """Let the projectors that the model's settings use be all that learns; they are given by their names in the model."""
    names = tuple(name for modality in model.config.modalities for name in PROJECTORS[modality])
    model.requires_grad_(False)
    projectors = {name: weights for name, weights in model.named_parameters() if part_of(name) in names}
    for weights in projectors.values():
        weights.requires_grad_(True)
    yield projectors
    model.requires_grad_(True)


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    for part in OF_SCENES:
        if part in name:
            return part
    if "_rows." in name:
        return ROWS
    return ADAPTERS if "lora_" in name else LANGUAGE


def learning_rate(training: Training, name: str) -> float:
    """What a parameter starts at: its part's own, or that of all others."""
    rates, part = training.learning_rates, part_of(name)
    if rates.gains is not None and "norm" in name:
        return rates.gains
    own = {SELECTOR: rates.selector, ROWS: rates.tokens, ADAPTERS: None, LANGUAGE: None}.get(part, rates.projectors)
    return training.learning_rate if own is None else own


class Watch(TrainerCallback):
    """Keeps where every trained weight started and what learning rate its part had."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.start = {name: weights.detach().cpu().clone() for name, weights in _trained(model)}
        self.rates: dict[str, float] = defaultdict(float)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """The learning rates that the schedule scales: the same whether or not the run was interrupted."""
        for group in given["optimizer"].param_groups:
            self.rates[group["part"]] = max(self.rates[group["part"]], group["initial_lr"])

    def movement(self) -> Movement:
        """How far each part is from where it started."""
        now: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, weights in _trained(self.model):
            now[part_of(name)].append((self.start[name], weights.detach().cpu()))
        return {part: _moved(pairs) | {"learning_rate": self.rates[part]} for part, pairs in sorted(now.items())}


def _trained(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return ((name, weights) for name, weights in model.named_parameters() if weights.requires_grad)


def _moved(pairs: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    pairs = list(pairs)
    changed = sum(int((before != after).sum()) for before, after in pairs)
    change = sum(float((after.double() - before.double()).square().sum()) for before, after in pairs)
    start = sum(float(before.double().square().sum()) for before, _ in pairs)
    share = changed / sum(before.numel() for before, _ in pairs)
    return {"share": round(share, 6), "norm": float(f"{(change / max(start, 1e-30)) ** 0.5:.4g}")}


def check_movement(stage: str, movement: Mapping[str, Mapping[str, float]], least: float) -> None:
    """Stop a stage whose training left a part where it was.

    Raises:
        GateError: naming the part, the share of it that moved, and its learning rate.
    """
    for part, found in movement.items():
        if found["share"] < least:
            raise GateError(
                f"Expected {stage} to change at least {least:.0%} of the weights of every part that it trains, found"
                f" {found['share']:.1%} of {part} changed at learning rate {found['learning_rate']:g}."
            )
