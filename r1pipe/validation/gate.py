"""Great Expectations: run every check, and write Data Docs that are the same bytes on the same data."""

import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

# Before the import: it reads its settings then, and would report to its makers.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
import great_expectations as gx
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.core.expect_column_kl_divergence_to_be_less_than import (
    ExpectColumnKLDivergenceToBeLessThan,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique
from great_expectations.expectations.core.expect_column_values_to_match_regex import ExpectColumnValuesToMatchRegex
from great_expectations.expectations.core.expect_table_row_count_to_be_between import ExpectTableRowCountToBeBetween

from r1pipe.errors import GateError
from r1pipe.validation.checks import Check, Drift, Expectation, Rows

logger = logging.getLogger(__name__)

_RUN = RunIdentifier(run_name="r1pipe", run_time=datetime(1970, 1, 1, tzinfo=UTC))
"""A report says what the data are, not when somebody looked."""

_SITE = "gx/uncommitted/data_docs/local_site"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
_BEACON = re.compile(r"https://great-expectations-web-assets\.[^\"']*")
_SHOWN = 5
"""Rows that a sentence names; the report has more of them."""

_UNSEEN = 1e-3
"""The share that a stored distribution grants to all values that it has not: without it the divergence is infinite."""


class Outcome(NamedTuple):
    """What became of one check."""

    check: Expectation
    passed: bool
    found: str
    """How many rows are not as expected, and which, in words; empty where all are."""

    num_unexpected: int
    """How many rows that is."""

    divergence: float | None = None
    """Of a drift, nats."""


def run_checks(checks: Sequence[Expectation], tables: Mapping[str, pd.DataFrame], data_docs: Path) -> list[Outcome]:
    """Judge each table by its checks.

    Args:
        checks: what must hold.
        tables: by name; each has a column `id`.
        data_docs: a folder that appears, with the report as HTML; what stood there goes.

    Returns:
        An outcome for each check, by table.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_pandas("r1pipe")
        outcomes: list[Outcome] = []
        for name, table in tables.items():
            ours = [check for check in checks if check.table == name]
            outcomes += _validate(context, source, name, table, ours)
        context.build_data_docs()
        site = Path(folder) / _SITE
        _settle(site)
        shutil.rmtree(data_docs, ignore_errors=True)
        shutil.copytree(site, data_docs)
    return outcomes


def judge(outcomes: Sequence[Outcome], report: Path) -> None:
    """Show the warnings; stop at what is critical.

    Raises:
        GateError: names each critical expectation that fails, its rows, and where the report is.
    """
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        if outcome.check.severity == "warning":
            logger.warning("%s: %s Found %s", outcome.check.name, outcome.check.meaning, outcome.found)
    critical = [outcome for outcome in failed if outcome.check.severity == "critical"]
    if critical:
        found = "; ".join(f"{o.check.name} ({o.check.table}: {o.found})" for o in critical)
        raise GateError(
            f"Expected every critical expectation about the data to hold, found {len(critical)} that fail: {found}; "
            f"read {report}."
        )


def _validate(
    context: Any, source: Any, name: str, table: pd.DataFrame, checks: Sequence[Expectation]
) -> Iterable[Outcome]:
    data = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=[_expectation(check) for check in checks]))
    columns = ["id", *dict.fromkeys(check.beside for check in checks if isinstance(check, Check) and check.beside)]
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=data, suite=suite))
    result = definition.run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": columns},
        run_id=_RUN,
    )
    by_name = {each.expectation_config.meta["check"]: each for each in result.results}
    # GX turns an error of its own into a failed expectation: it stops the gate like any other.
    return [_outcome(check, by_name[check.name]) for check in checks]


def _expectation(check: Expectation) -> Any:
    shared: dict[str, Any] = {
        "severity": check.severity,
        "meta": {"check": check.name},
        "notes": f"{check.name}: {check.meaning}",
    }
    if isinstance(check, Rows):
        return ExpectTableRowCountToBeBetween(min_value=check.minimum, **shared)
    if isinstance(check, Drift):
        return ExpectColumnKLDivergenceToBeLessThan(
            column=check.column,
            partition_object=dict(check.partition),
            threshold=check.threshold,
            tail_weight_holdout=_UNSEEN,
            **shared,
        )
    shared |= {"column": check.column, "mostly": check.mostly}
    if check.unique:
        return ExpectColumnValuesToBeUnique(**shared)
    if check.values is not None:
        return ExpectColumnValuesToBeInSet(value_set=list(check.values), **shared)
    if check.pattern is not None:
        return ExpectColumnValuesToMatchRegex(regex=check.pattern, **shared)
    return ExpectColumnValuesToBeBetween(min_value=check.low, max_value=check.high, **shared)


def _outcome(check: Expectation, result: Any) -> Outcome:
    facts = result.result
    divergence = facts.get("observed_value") if isinstance(check, Drift) else None
    if divergence is not None and not math.isfinite(divergence):
        divergence = None  # of a column without a value
    found = "" if result.success else _found(check, result)
    return Outcome(check, bool(result.success), found, int(facts.get("unexpected_count", 0)), divergence)


def _found(check: Expectation, result: Any) -> str:
    facts = result.result
    if not isinstance(check, Check) or "unexpected_count" not in facts:
        return str(facts.get("observed_value", result.exception_info))
    rows = facts.get("partial_unexpected_index_list") or []
    named = [f"{row['id']} ({row[check.beside]})" if check.beside else str(row["id"]) for row in rows]
    shown = "; ".join(list(dict.fromkeys(named))[:_SHOWN])
    more = ", such as" if facts["unexpected_count"] > _SHOWN else ":"
    return f"{facts['unexpected_count']} of {facts['element_count']} rows{more} {shown}"


def _settle(site: Path) -> None:
    """Replace what differs from run to run: GX's random element ids by their order, the times at which it looked.

    Its logo comes from a server that is told the time and the project's id; ours is the copy in the site.
    """
    for page in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = page.read_text(encoding="utf-8")
        for number, uuid in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(uuid, f"{number:08d}-0000-0000-0000-000000000000")
        logo = "../" * len(page.relative_to(site).parent.parts) + "static/images/logo-long.png"
        page.write_text(_TIME.sub("19700101T000000.000000Z", _BEACON.sub(logo, text)), encoding="utf-8")
