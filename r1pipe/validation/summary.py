"""What the stage found, as the numbers of `validate.json`: DVC compares them, the report shows them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from r1pipe.params.chains import Validate
from r1pipe.validation.checks import Drift
from r1pipe.validation.defects import defect_counts
from r1pipe.validation.figures import Figure
from r1pipe.validation.gate import Outcome


def summary(
    outcomes: Sequence[Outcome], figures: Sequence[Figure], annotations: pd.DataFrame, section: Validate
) -> dict[str, Any]:
    """Expectations by severity, each warning in words, the filters' figures, the drift, the defects by file."""
    counts = Counter((outcome.check.severity, outcome.passed) for outcome in outcomes)
    return {
        "expectations": {
            severity: {"passed": counts[severity, True], "failed": counts[severity, False]}
            for severity in ("critical", "warning")
        },
        "warnings": {o.check.name: f"{o.check.meaning} Found {o.found}." for o in outcomes if not o.passed},
        "faults": {figure.fault: _figure(figure) for figure in figures},
        "drift": _drift(outcomes, section),
        "defects": defect_counts(annotations),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "filter": figure.filter,
        "recall": figure.recall._asdict(),
        "precision": figure.precision._asdict(),
    }


def _drift(outcomes: Sequence[Outcome], section: Validate) -> Mapping[str, Any]:
    """Nats by column; empty where no profile is given."""
    return {
        "profile": None if section.profile is None else section.profile.as_posix(),
        "allowed": section.max_drift,
        "divergence": {
            f"{o.check.table}, {o.check.column}": None if o.divergence is None else round(o.divergence, 4)
            for o in outcomes
            if isinstance(o.check, Drift)
        },
    }
