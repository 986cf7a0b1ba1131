"""What the model said while it was rewarded, to be read: some completions of every logged step, one JSON object a line.

TRL's own table (`log_completions`) has every completion, and overwrites those of a step after which it measures held-out
prompts by theirs.
"""

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from r1pipe.files import read_jsonl, write_jsonl

NUM_GROUPS = 4
"""Prompts kept of a logged step, each with its whole group."""


class Completions(TrainerCallback):
    """Writes `step`, `scene`, `prompt`, `completion`, `rewards` (None where one does not apply) and `advantage`."""

    def __init__(self, trainer: GRPOTrainer, group_size: int, *, parts: Path, table: Path) -> None:
        """`parts` is where an interrupted run finds its rows again, `table` the file at the end."""
        self.trainer, self.group_size, self.parts, self.table = trainer, group_size, parts, table

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Keep the first groups of the step's batch, and the share of all that agree; held-out prompts are left out."""
        if "loss" not in (logs or {}):
            return
        state.log_history[-1]["frac_reward_zero_std"] = self._agreeing()
        if state.is_world_process_zero:
            rows = islice(self._rows(state.global_step), NUM_GROUPS * self.group_size)
            write_jsonl(self.parts / f"{state.global_step:08d}.jsonl", rows)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Join the rows of all steps."""
        if state.is_world_process_zero:
            parts = sorted(self.parts.glob("[0-9]*.jsonl"))
            write_jsonl(self.table, (row for part in parts for row in read_jsonl(part)))

    def _agreeing(self) -> float:
        """The share of groups that teach nothing; TRL's number of this name is about the batch where that sets the scale."""
        advantages_GK = np.array(self.trainer._logs["advantages"]).reshape(-1, self.group_size)
        return float(np.isclose(advantages_GK, 0.0).all(axis=1).mean())

    def _rows(self, step: int) -> Iterator[dict[str, Any]]:
        logs: Any = self.trainer._logs
        columns = zip(logs["prompt"], logs["completion"], logs["advantages"], strict=True)
        for i, (prompt, completion, advantage) in enumerate(columns):
            rewards = {name.removesuffix("_reward"): values[i] for name, values in logs["rewards"].items()}
            scene, question = _read(prompt)
            yield {
                "step": step,
                "scene": scene,
                "prompt": question,
                "completion": completion[0]["content"],
                "rewards": {name: None if math.isnan(value) else round(value, 6) for name, value in rewards.items()},
                "advantage": round(advantage, 6),
            }


def _read(prompt: list[dict[str, Any]]) -> tuple[str, str]:
    """The scene of a conversation, and its last turn."""
    parts = [part for turn in prompt for part in turn["content"] if isinstance(part, dict)]
    scene = next(part["image"].partition("|")[0] for part in parts if part["type"] == "image")
    last = prompt[-1]["content"]
    return scene, last if isinstance(last, str) else " ".join(part["text"] for part in last if part["type"] == "text")
