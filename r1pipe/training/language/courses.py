"""The course of a training as dvclive files: the same bytes whether or not the run was interrupted."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

CLOCKED = ("runtime", "per_second", "step_time", "epoch", "total_flos")
"""Parts of names of what depends on the machine's speed, or repeats the step."""

LINE_EVERY_S = 20.0


class Courses(TrainerCallback):
    """Logs every number of the trainer with dvclive, from the first step even when the run was resumed."""

    def __init__(self, folder: Path, model: Any = None) -> None:
        """`folder` is dvclive's; with `model`, the weights of its view selector are logged too."""
        self.folder, self.model = folder, model
        self.live: Live | None = None
        self._last_line = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start afresh, and replay what was logged before an interruption; the first process writes."""
        if not state.is_world_process_zero:
            return
        self.live = Live(str(self.folder), dvcyaml=None, save_dvc_exp=False, report=None)
        for row in state.log_history:
            self._write(row)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Write one row; the trainer has just put it into its history."""
        row = state.log_history[-1]
        row.update(self._view_weights())
        self._write(row)
        self._line(state, row)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the files."""
        if self.live is not None:
            self.live.end()

    def _view_weights(self) -> dict[str, float]:
        if self.model is None:
            return {}
        weights = self.model.model.view_selector.weights()
        return {f"views/w_{name}": round(value.item(), 6) for name, value in weights._asdict().items()}

    def _write(self, row: Mapping[str, float | None]) -> None:
        """One row of the trainer's history, without what a clock decides."""
        if self.live is None:
            return
        self.live.step = int(row["step"] or 0)
        for name, value in row.items():
            # TRL logs None for the mean of a reward that applied to no completion of the step.
            if value is not None and name != "step" and not any(part in name for part in CLOCKED):
                self.live.log_metric(name, float(value))
        self.live.sync()

    def _line(self, state: TrainerState, row: dict[str, float]) -> None:
        """A line now and then: step, loss or reward."""
        if self.live is None:
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            shown = {
                name: round(float(row[name]), 4) for name in ("loss", "reward", "mean_token_accuracy") if name in row
            }
            logger.info("step %d of %d: %s", state.global_step, state.max_steps, shown)


class DeadRewardAlarm(TrainerCallback):
    """Warns when a reward has had no spread for some logged steps: nothing is learnt from it."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self._still: dict[str, int] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count on from where an interrupted run was."""
        for row in state.log_history:
            self._count(row)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Count the steps in a row at zero, reward by reward, and say so once a row is long."""
        for name in self._count(logs or {}):
            if self._still[name] == self.patience and state.is_world_process_zero:
                logger.warning(
                    "%s has been 0 for %d logged steps: this reward no longer tells completions apart.",
                    name,
                    self.patience,
                )

    def _count(self, row: Mapping[str, float | None]) -> list[str]:
        """The rewards whose spread is zero in this row; one that applied to no completion counts neither way."""
        spreads = {
            name: value
            for name, value in row.items()
            if name.startswith("rewards/") and name.endswith("/std") and value is not None
        }
        for name, value in spreads.items():
            self._still[name] = self._still.get(name, 0) + 1 if value == 0 else 0
        return [name for name, value in spreads.items() if value == 0]
