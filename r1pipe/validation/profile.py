"""A profile: how the data were distributed when somebody was content with them, to be held against what comes later.

`r1pipe profile FILE` writes one, `validate.profile` names it, and the gate warns where a column has drifted from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, model_validator

from r1pipe.datasets.rows import parse
from r1pipe.files import read_json, write_text
from r1pipe.validation.checks import Drift

Kind = Literal["values", "bins"]

COLUMNS: Mapping[tuple[str, str], Kind] = {
    ("scenes", "span"): "bins",
    ("objects", "label"): "values",
    ("objects", "longest"): "bins",
    ("samples", "task"): "values",
    ("samples", "source"): "values",
    ("samples", "question_words"): "bins",
    ("samples", "answer_words"): "bins",
    ("drafts", "reason"): "values",
    ("cot", "think_words"): "bins",
    ("cot", "num_steps"): "bins",
}
"""What is profiled, by table and column: words by their frequency, numbers by deciles."""

_DECILES = np.linspace(0, 1, 11)


class Distribution(BaseModel):
    """One column: the share of each value, or of each bin between two edges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    column: str
    values: tuple[str, ...] | None = None
    bins: tuple[float, ...] | None = None
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> "Distribution":
        size = len(self.values or ()) + max(len(self.bins or ()) - 1, 0)
        if (self.values is None) == (self.bins is None) or size != len(self.weights):
            raise ValueError(f"needs values or bins for its {len(self.weights)} weights")
        return self

    def drift(self, threshold: float) -> Drift:
        """The expectation that a column is distributed like this."""
        name = f"drift_{self.table}_{self.column}"
        meaning = f"{self.column} of {self.table} is distributed as in the stored profile."
        partition = self.model_dump(include={"values", "bins", "weights"}, exclude_none=True, mode="json")
        return Drift(name, self.table, self.column, meaning, partition, threshold)


class Profile(BaseModel):
    """A distribution for each of `COLUMNS` that has values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    distributions: tuple[Distribution, ...]

    @classmethod
    def of(cls, tables: Mapping[str, pd.DataFrame]) -> "Profile":
        """The profile of the evidence, by table."""
        found = (_distribution(table, column, kind, tables[table][column]) for (table, column), kind in COLUMNS.items())
        return cls(distributions=tuple(each for each in found if each is not None))

    @classmethod
    def load(cls, path: Path) -> "Profile":
        """Read what `save` wrote.

        Raises:
            MissingError: if there is no such file.
            DataError: if it is no profile.
        """
        return parse(cls, read_json(path), f"{path}")

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")

    def drifts(self, threshold: float) -> tuple[Drift, ...]:
        """An expectation for each column."""
        return tuple(each.drift(threshold) for each in self.distributions)


def _distribution(
    table: str, column: str, kind: Kind, found: "pd.Series[str] | pd.Series[float]"
) -> Distribution | None:
    known = found.dropna()
    if known.empty:
        return None
    if kind == "values":
        counts = known.value_counts().sort_index()
        return Distribution(
            table=table, column=column, values=tuple(map(str, counts.index)), weights=_weights(counts.to_numpy())
        )
    numbers = known.to_numpy(dtype=float)
    # Deciles that are numbers of the data: no bin between two of them is empty.
    edges = np.unique(np.quantile(numbers, _DECILES, method="nearest"))
    if len(edges) == 1:
        edges = np.array([edges[0] - 0.5, edges[0] + 0.5])
    weights = _weights(np.histogram(numbers, edges)[0])
    return Distribution(table=table, column=column, bins=tuple(edges.tolist()), weights=weights)


def _weights(counts: "np.ndarray[tuple[int], np.dtype[np.integer[Any]]]") -> tuple[float, ...]:
    return tuple((counts / counts.sum()).tolist())
