"""Run an ablation: every variant as a DVC experiment of its own, then one table of what each part is worth."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from rich.box import SIMPLE_HEAD
from rich.table import Table

from r1pipe.errors import DataError, GateError
from r1pipe.evaluation.ablations import ABLATIONS, Ablation, Results, compare, pooled
from r1pipe.evaluation.table import cell
from r1pipe.experiments import predictions_of
from r1pipe.files import write_json
from r1pipe.params import Params
from r1pipe.stages.runner import environment
from r1pipe.stages.work import SHARED

logger = logging.getLogger(__name__)


def ablate(name: str, params: Params, *, jobs: int | None = None) -> Results:
    """Run what has not been run at this commit, compare, and keep the table at `paths.ablations`.

    Args:
        name: of the ablation.
        params: of this run.
        jobs: how many runs there are at once, through DVC's queue; None runs one after the other, in this process's sight.

    Raises:
        DataError: if there is no such ablation.
        GateError: if a run of the pipeline failed; those before it are kept, and not run again.
    """
    if name not in ABLATIONS:
        raise DataError(f"Expected an ablation among {', '.join(ABLATIONS)}, found {name!r}.")
    ablation, commit = ABLATIONS[name], _commit()
    experiments = {run: _experiment(name, run, commit) for run in ablation.runs}
    known = _known()
    for experiment in known.intersection(experiments.values()):
        logger.info("%s has been run.", experiment)
    todo = {
        experiments[run]: [*overrides, *ablation.shared] if overrides else []
        for run, overrides in ablation.runs.items()
        if experiments[run] not in known
    }
    _run(todo, jobs)
    found = {
        variant: pooled([predictions_of(experiments[run], shown.arm, ablation, params) for run in shown.runs])
        for variant, shown in ablation.variants.items()
    }
    results = compare(ablation, found, resamples=params.evaluate.bootstrap, seed=params.base.seed)
    write_json(params.paths.ablations / f"{name}.json", {"title": ablation.title, "commit": commit, "rows": results})
    return results


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()[:10]


def _experiment(name: str, run: str, commit: str) -> str:
    """A name that git and DVC take, the same for the same code."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', run.lower())}-{commit}"


def _known() -> set[str]:
    """The experiments that there are, of any commit."""
    with Repo() as repo:
        return {row[0] for rows in repo.experiments.ls().values() for row in rows}


def _run(todo: Mapping[str, Sequence[str]], jobs: int | None) -> None:
    """Everything up to the scores, each in a folder of its own; stages that do not change come from DVC's cache.

    `--temp` runs where it is started: progress and errors are seen, Ctrl-C stops it, and the first failure ends all. The
    queue's workers are processes of their own, with their own logs; what it is worth is that several can run at once.
    """
    how = "--temp" if jobs is None else "--queue"
    for experiment, overrides in todo.items():
        logger.info("%s: %s", experiment, ", ".join(overrides) or "nothing changed")
        settings = [argument for override in overrides for argument in ("--set-param", override)]
        status = _dvc("exp", "run", how, "--name", experiment, *settings, "evaluate")
        if status:
            raise GateError(f"Expected experiment {experiment} to reach its scores, found exit status {status}.")
    if todo and jobs is not None:
        _dvc("exp", "run", "--run-all", "--jobs", str(jobs))
        # Its exit status says nothing of a single experiment.
        failed = [experiment for experiment in todo if experiment not in _known()]
        if failed:
            raise GateError(
                f"Expected {len(todo)} experiments to reach their scores, found {len(failed)} that did not: "
                f"{', '.join(failed)}; `dvc queue logs {failed[0]}` says why."
            )


def _dvc(*arguments: str) -> int:
    """Run DVC; what an interrupted stage has begun stays here, as DVC deletes the experiment's folder with its `.work`."""
    kept = {SHARED: os.environ.get(SHARED, str(Path(".work/experiments").absolute()))}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, check=False, env=environment() | kept).returncode


def ablation_table(ablation: Ablation, results: Results) -> Table:
    """Each variant's numbers; below, how far it is from the last variant with its paired 95 % interval."""
    title = f"{ablation.title}: 0 to 100; below, the change from {list(results)[-1]} with its 95 % interval"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", overflow="fold")
    for column in ablation.columns:
        count = next(iter(results.values()))[column.title]["n"]
        table.add_column(f"{column.title}\nn={count}", justify="right", no_wrap=True)
    for variant, cells in results.items():
        show = cell if variant == list(results)[-1] else _changed
        table.add_row(variant, *(show(cells[column.title]) for column in ablation.columns))
    return table


def _changed(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.1f}\n{found['change']:+.1f}\n[{found['change_low']:+.1f},{found['change_high']:+.1f}]"
