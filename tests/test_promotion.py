"""A model is promoted where it is better on the same questions, and not where it may only be so; tags are GTO's."""

import json
import random
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from tiny_flows import ROOT, commit, git

from flows.promotion import judge, promote, promoted
from r1pipe.errors import DataError
from r1pipe.params import Params
from r1pipe.params.flows import Gate

PARAMS = Params.load(ROOT / "params.yaml")
GATE = Gate(task="grounding", metric="acc_25", min_gain=0.0)
COUNT = 200


def answer(folder: Path, right: float, *, questions: int = COUNT) -> None:
    """Predictions of which a share is right, always the same questions first."""
    target = folder / PARAMS.paths.predictions
    target.mkdir(parents=True, exist_ok=True)
    boxes = [[float(i), 0.0, 0.5, 1.0, 1.0, 1.0] for i in range(questions)]
    write = lambda name, rows: (target / name).write_text("".join(json.dumps(row) + "\n" for row in rows))  # noqa: E731
    write("references-grounding.jsonl", [{"id": f"q{i}", "boxes": [box]} for i, box in enumerate(boxes)])
    chosen = random.Random(0).sample(range(questions), int(right * questions))
    far = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]
    rows = [{"id": f"q{i}", "boxes": [box if i in chosen else far]} for i, box in enumerate(boxes)]
    write("grpo-grounding.jsonl", rows)


@pytest.fixture
def folder(tmp_path):
    """A repository whose model, right on half the questions, is promoted."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    Repo.init(str(tmp_path)).close()
    model = "artifacts:\n  r1: {path: models/grpo, type: model}\nstages:\n  grpo: {cmd: 'true', outs: [models/grpo]}\n"
    (tmp_path / "dvc.yaml").write_text(model)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    answer(tmp_path, 0.5)
    commit(tmp_path, "half right")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    with chdir(tmp_path):
        assert judge(GATE, PARAMS, promoted()).promoted
        promote(None, "The first.")
        yield tmp_path


@pytest.mark.parametrize(
    ("right", "gate", "better"),
    [
        pytest.param(0.6, GATE, True, id="better"),
        pytest.param(0.5, GATE, False, id="as good"),
        pytest.param(0.505, GATE, False, id="one question in 200 may be luck"),
        pytest.param(0.4, GATE, False, id="worse"),
        pytest.param(0.6, GATE.model_copy(update={"min_gain": 20.0}), False, id="better, not by what is asked"),
    ],
)
def test_the_gate_is_a_paired_test(folder, right, gate, better):
    answer(folder, right)
    verdict = judge(gate, PARAMS, promoted())
    assert verdict.promoted is better
    assert f"acc_25 of grounding {100 * right:.1f} against 50.0 of r1#production#1" in verdict.sentence
    assert verdict.sentence.endswith("so it is promoted." if better else "so it is not promoted.")


def test_versions_and_stages_are_tags_that_dvc_reads(folder):
    assert promoted() == "r1#production#1"
    assert promote(None, "Better.") == "r1@v2.0.0"
    assert set(git(folder, "tag").split()) == {"r1@v1.0.0", "r1#production#1", "r1@v2.0.0", "r1#production#2"}
    assert git(folder, "show", "r1@v2.0.0:dvc.lock") == "schema: '2.0'\nstages: {}"
    assert git(folder, "log", "-1", "--format=%s") == "half right"  # no branch moved
    with Repo() as repo:
        revision = repo.artifacts.get_rev("r1", stage="production")
    assert git(folder, "rev-parse", revision + "^{commit}") == git(folder, "rev-parse", "r1@v2.0.0^{commit}")


def test_a_promotion_reaches_the_repository(folder, tmp_path_factory):
    bare = tmp_path_factory.mktemp("bare")
    git(bare, "init", "--quiet", "--bare")
    promote(str(bare), "Better.")
    assert set(git(bare, "tag").split()) == {"r1@v2.0.0", "r1#production#2"}


def test_other_questions_and_other_metrics_are_refused(folder):
    with pytest.raises(DataError, match=r"among acc_25, acc_50.*, found em\."):
        judge(GATE.model_copy(update={"metric": "em"}), PARAMS, promoted())
    answer(folder, 0.5, questions=COUNT + 1)
    with pytest.raises(DataError, match="the questions that r1#production#1 answered"):
        judge(GATE, PARAMS, promoted())
