"""Which model is the promoted one: a gate of the same questions, and tags in the form of DVC's model registry.

The tags are those that GTO reads, and DVC with it: `r1@v3` names a version of the artifact `r1` in dvc.yaml, and
`r1#production#3` says that this version is now at that stage. Each points at a commit with its own dvc.lock, so
`dvc artifacts get REPOSITORY r1 --stage production` brings the weights.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import dvc.api

from flows.version import git
from r1pipe.errors import DataError
from r1pipe.evaluation.scorecard import run_compare
from r1pipe.params import Params
from r1pipe.params.flows import Gate

ARTIFACT = "r1"
"""Its name in dvc.yaml; the model is the arm `grpo`."""

STAGE = "production"
VERSION_TAG, STAGE_TAG = f"{ARTIFACT}@v{{}}.0.0", f"{ARTIFACT}#{STAGE}#{{}}"
AUTHOR = ("-c", "user.name=r1pipe nightly", "-c", "user.email=nightly@r1pipe.invalid")


class Verdict(NamedTuple):
    """Whether a model is promoted, and why."""

    promoted: bool
    sentence: str


def promoted() -> str | None:
    """The newest `production` tag of this repository; None before the first."""
    number = _last(STAGE_TAG)
    return STAGE_TAG.format(number) if number else None


def judge(gate: Gate, params: Params, serving: str | None) -> Verdict:
    """Compare the model of the working directory with the promoted one, question by question.

    Raises:
        DataError: if the two answered different questions, or the metric is none of the task's.
    """
    if serving is None:
        return Verdict(True, "No model is promoted yet, so this one is.")
    files = {name: params.paths.predictions / f"{name}-{gate.task}.jsonl" for name in ("grpo", "references")}
    old = {name: dvc.api.read(file.as_posix(), rev=serving) for name, file in files.items()}
    if old["references"] != files["references"].read_text(encoding="utf-8"):
        raise DataError(f"Expected the questions that {serving} answered in {files['references']}, found other ones.")
    with TemporaryDirectory() as folder:
        before = Path(folder) / "promoted.jsonl"
        before.write_text(old["grpo"], encoding="utf-8")
        gaps = run_compare(
            gate.task,
            before,
            files["grpo"],
            files["references"],
            resamples=params.evaluate.bootstrap,
            seed=params.base.seed,
        )
    if gate.metric not in gaps:
        raise DataError(f"Expected a metric of {gate.task} among {', '.join(gaps)}, found {gate.metric}.")
    return _verdict(gate, serving, gaps[gate.metric])


def _verdict(gate: Gate, serving: str, gap: dict[str, Any]) -> Verdict:
    beats = gap["low"] > gate.min_gain
    found = f"{gap['difference']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}], paired, n={gap['n']}"
    what = f"{gate.metric} of {gate.task} {gap['second']:.1f} against {gap['first']:.1f} of {serving}"
    rule = f"{'above' if beats else 'not above'} {gate.min_gain:g}"
    return Verdict(beats, f"{what}: {found}; the interval lies {rule}, so it is {'' if beats else 'not '}promoted.")


def promote(repository: str | None, sentence: str) -> str:
    """Tag the working directory's results as a new version at `production`, here or in a repository.

    Returns:
        the version's tag.
    """
    tags = [tag.format(_last(tag) + 1) for tag in (VERSION_TAG, STAGE_TAG)]
    results = _commit_results(sentence)
    for tag in tags:
        git(*AUTHOR, "tag", "--annotate", "--message", sentence, tag, results)
    if repository is not None:
        git("push", "--quiet", "--atomic", repository, *tags)
    return tags[0]


def _commit_results(message: str) -> str:
    """A commit of dvc.lock and params.yaml on top of the one that is checked out; no branch moves."""
    with TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git("read-tree", "HEAD", environ=index)
        git("add", "--force", "dvc.lock", "params.yaml", environ=index)
        tree = git("write-tree", environ=index)
    return git(*AUTHOR, "commit-tree", tree, "-p", "HEAD", "-m", message)


def _last(form: str) -> int:
    """The greatest number among the tags of this form; 0 where there are none."""
    pattern = re.escape(form).replace(re.escape("{}"), r"(\d+)")
    found = (re.fullmatch(pattern, tag) for tag in git("tag", "--list", f"{ARTIFACT}*").splitlines())
    return max((int(match[1]) for match in found if match), default=0)
