"""Checkpoints that a run goes on from to the same bytes, whenever and however it was ended.

transformers writes weights, optimiser, scheduler and the generators' states. What it leaves out is kept beside them:

- what was measured since the last logged step, and the counts that only grow;
- what a reward remembers: the last bits of a text's embedding depend on the texts that were embedded beside it;
- how many epochs GRPO's sampler has shuffled: TRL's draws all of them from one generator, which starts anew.

GRPO's completions need no keeping: `grpo.py` has every one used up within the optimizer step that it was made for, and a
checkpoint lies between two steps. A checkpoint counts once it bears the mark that is written last, so a run killed while
writing goes on from the one before. transformers' own just-in-time checkpoint would not do: it saves in mid-step, when
the completions have been drawn and the weights have not moved, and draws others afterwards.
"""

import logging
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self

import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer, SFTTrainer
from trl.trainer.utils import RepeatSampler

from r1pipe.files import read_json, write_json

logger = logging.getLogger(__name__)

Trainer = SFTTrainer | GRPOTrainer

MARK = "whole.json"
_COUNTS = ("_total_loss_scalar", "_globalstep_last_logged", "_total_train_tokens")
"""Numbers that a trainer keeps on itself and in no checkpoint; the last is SFT's alone."""


class Memory(Protocol):
    """What learns while training runs without being a parameter; `rewards.SemanticReward` does."""

    def save(self, path: Path) -> None:
        """Write all of it."""

    def load(self, path: Path) -> None:
        """Be as it was when this was written."""


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint of an interrupted run, None where there is none."""
    return max((mark.parent for mark in work.glob(f"checkpoint-*/{MARK}")), key=_step, default=None)


def discard_unfinished(work: Path) -> None:
    """Remove what a killed run was still writing."""
    for folder in work.glob("checkpoint-*"):
        if not (folder / MARK).is_file():
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    return int(re.sub(r"\D", "", folder.name))


class Remainder(TrainerCallback):
    """Keeps beside each checkpoint what transformers leaves out, and puts it back."""

    def __init__(self, trainer: Trainer, work: Path, memories: Sequence[Memory]) -> None:
        self.trainer, self.work, self.memories = trainer, work, memories

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """No checkpoint at the last step: transformers would go on from it with one step more."""
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Every process writes its own; the first marks the checkpoint when all have."""
        folder = self._folder(state)
        write_json(self._numbers(folder), self._unlogged(state))
        for number, memory in enumerate(self.memories):
            memory.save(self._memory(folder, number))
        self.trainer.accelerator.wait_for_everyone()
        if self.trainer.accelerator.is_main_process:
            write_json(folder / MARK, {"step": state.global_step})

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Where the run goes on from a checkpoint, make the trainer what it was there."""
        if state.global_step == 0:
            return
        folder = self._folder(state)
        self._restore(read_json(self._numbers(folder)), state)
        for number, memory in enumerate(self.memories):
            memory.load(self._memory(folder, number))
        _skip_epochs(given["train_dataloader"], int(state.epoch or 0))

    def _unlogged(self, state: TrainerState) -> dict[str, Any]:
        return {
            "loss": self.trainer._tr_loss.item(),
            "metrics": self.trainer._metrics["train"],
            "counts": {name: vars(self.trainer)[name] for name in _COUNTS if name in vars(self.trainer)},
            "history": state.log_history,  # transformers' own copy has its keys sorted
        }

    def _restore(self, unlogged: dict[str, Any], state: TrainerState) -> None:
        state.log_history = unlogged["history"]
        self.trainer._tr_loss += unlogged["loss"]
        self.trainer._metrics["train"].update(unlogged["metrics"])
        vars(self.trainer).update(unlogged["counts"])
        self.trainer._initial_global_step = 0  # the mean loss at the end is that of all steps

    def _folder(self, state: TrainerState) -> Path:
        return self.work / f"checkpoint-{state.global_step}"

    def _numbers(self, folder: Path) -> Path:
        return folder / f"unlogged-{self.trainer.accelerator.process_index}.json"

    def _memory(self, folder: Path, number: int) -> Path:
        return folder / f"memory-{number}-{self.trainer.accelerator.process_index}.safetensors"


def _skip_epochs(loader: DataLoader[Any], count: int) -> None:
    """Draw the orders that GRPO's sampler has drawn; SFT's takes its seed from the epoch and needs nothing."""
    batches = loader.batch_sampler
    sampler = (batches.batch_sampler if isinstance(batches, BatchSamplerShard) else batches).sampler  # type: ignore[union-attr]
    if isinstance(sampler, RepeatSampler):
        for _ in range(count):
            torch.randperm(sampler.num_samples, generator=sampler.generator)


class StopOnTerm(TrainerCallback):
    """Lets SIGTERM end the training behind the next step, with a checkpoint; a second one ends it at once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.asked = False
        self.stopped_at: int | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            sys.exit(128 + number)
        self.asked = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All processes stop behind the same step: whichever was asked tells the others."""
        if self.asked:
            self.trainer.accelerator.set_trigger()
        if self.trainer.accelerator.check_trigger() and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            self.stopped_at = state.global_step


def train(
    trainer: Trainer, work: Path, *, callbacks: Sequence[TrainerCallback], memories: Sequence[Memory] = ()
) -> None:
    """Train, from the last whole checkpoint of an interrupted run where there is one.

    Args:
        trainer: TRL's.
        work: its output folder, where checkpoints lie.
        callbacks: what watches; they find the history of an interrupted run as it was.
        memories: what has to be as it was when a run goes on.

    Raises:
        InterruptedError: after SIGTERM, when the checkpoint is written; the sentence says at which step.
    """
    checkpoint = last_checkpoint(work)
    if trainer.accelerator.is_main_process:
        discard_unfinished(work)
    trainer.accelerator.wait_for_everyone()
    if checkpoint is not None:
        logger.info("Going on from %s.", checkpoint.name)
    trainer.remove_callback(PrinterCallback)  # `Courses` says how far it is
    with StopOnTerm(trainer) as stop:
        for callback in (Remainder(trainer, work, memories), *callbacks, stop):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if stop.stopped_at is not None:
        raise InterruptedError(
            f"Stopped by SIGTERM at step {stop.stopped_at} of {trainer.state.max_steps}; the next run goes on from there."
        )
