"""What DVC experiments said, by their names, and how one differs from another."""

import json

import dvc.api
from dvc.exceptions import DvcException
from dvc.scm import RevError

from r1pipe.errors import DataError, MissingError
from r1pipe.evaluation.ablations import Ablation, Predictions, Results, Rows, compare
from r1pipe.params import Params

WORKSPACE = "workspace"
"""DVC's name for what lies here, in no experiment."""


def predictions_of(experiment: str, arm: str, ablation: Ablation, params: Params) -> Predictions:
    """What an arm of an experiment, or of any commit whose predictions are in DVC's cache, said for an ablation's columns.

    Raises:
        DataError: if there is no such experiment or commit.
        MissingError: if it has no predictions of that arm, or they are not in the cache.
    """

    def read(file: str) -> Rows:
        path = (params.paths.predictions / file).as_posix()
        try:
            text = dvc.api.read(path, rev=None if experiment == WORKSPACE else experiment)
        except RevError:
            raise DataError(
                f"Expected an experiment or a commit, found {experiment!r}; `dvc exp show` lists them."
            ) from None
        except (DvcException, OSError) as error:
            reason = str(error).rstrip(".")
            raise MissingError(f"Expected {path} of {experiment} in DVC's cache, found none: {reason}.") from None
        return [json.loads(line) for line in text.splitlines()]

    tasks = {column.task for column in ablation.columns}
    return Predictions(
        {task: read(f"{arm}-{task}.jsonl") for task in tasks},
        {task: read(f"references-{task}.jsonl") for task in tasks - {"reward"}},
    )


def compare_experiments(first: str, second: str, arm: str, params: Params) -> tuple[Ablation, Results]:
    """How an arm of the second experiment differs from the first's, sample by sample.

    Raises:
        DataError: if there is no such experiment, or they answered other questions.
        MissingError: if predictions are not there.
    """
    shown = Ablation.of("Experiments", arm, {second: (), first: ()})
    found = {name: predictions_of(name, arm, shown, params) for name in shown.runs}
    return shown, compare(shown, found, resamples=params.evaluate.bootstrap, seed=params.base.seed)
