"""An ablation runs its variants as DVC experiments, and tells each change with a paired interval."""

import copy
import subprocess
import sys
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml

from r1pipe.ablate import _commit, ablate, ablation_table
from r1pipe.errors import DataError, GateError, MissingError, ParamsError
from r1pipe.evaluation.ablations import ABLATIONS, Predictions, compare, pooled
from r1pipe.experiments import compare_experiments
from r1pipe.files import read_json
from r1pipe.params import Params

ROOT = Path(__file__).parents[1]
MODALITIES = ABLATIONS["modalities"]
BOX, ELSEWHERE = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [9.0, 9.0, 0.5, 1.0, 1.0, 1.0]


def said(num_right):
    """What a model says that answers the first `num_right` of ten questions."""
    right = [i < num_right for i in range(10)]
    return {
        "qa": [{"id": f"q{i}", "answer": "red" if ok else "blue"} for i, ok in enumerate(right)],
        "grounding": [{"id": f"g{i}", "boxes": [BOX if ok else ELSEWHERE]} for i, ok in enumerate(right)],
        "captioning": [
            {"scene_id": f"s{i}", "box": BOX, "caption": f"a chair number {i}" if ok else "no"}
            for i, ok in enumerate(right)
        ],
    }


REFERENCES = {
    "qa": [{"id": f"q{i}", "answers": ["red"]} for i in range(10)],
    "grounding": [{"id": f"g{i}", "boxes": [BOX]} for i in range(10)],
    "captioning": [
        {"scene_id": f"s{i}", "object_id": 0, "box": BOX, "captions": [f"a chair number {i}"]} for i in range(10)
    ],
}


def test_a_change_is_paired_with_the_full_model_sample_by_sample():
    rights = {"text+image": 2, "text+image+depth": 3, "text+image+points": 9, "full": 9}
    found = {name: Predictions(said(num), REFERENCES) for name, num in rights.items()}
    results = compare(MODALITIES, found, resamples=200, seed=0)
    assert [results[name]["exact match"]["value"] for name in rights] == [20, 30, 90, 90]
    cell = results["text+image"]["Acc@0.25"]
    assert cell["change"] == -70 and -100 < cell["change_low"] < -70 < cell["change_high"] < -30
    same = results["text+image+points"]["exact match"]
    assert (same["change"], same["change_low"], same["change_high"]) == (0, 0, 0)
    lines = ablation_table(MODALITIES, results)
    assert [column.header for column in lines.columns][1] == "exact match\nn=10"
    assert next(iter(lines.columns[1].cells)).startswith("20.0\n-70.0\n[")


def test_seeds_pool_what_each_arm_earned_on_its_own_questions():
    def run(totals):
        rows = [{"id": f"q{i}", "format": 1.0, "total": total} for i, total in enumerate(totals)]
        return Predictions({**said(5), "reward": rows}, REFERENCES)

    found = {
        arm: pooled([run([base, base]), run([base + 0.25, base + 0.25])])
        for arm, base in {"sft": 0.25, "control_prompts": 0.3, "control_sequences": 0.4, "grpo": 0.5}.items()
    }
    assert [row["id"] for row in found["grpo"].rows["reward"]] == ["0/q0", "0/q1", "1/q0", "1/q1"]
    results = compare(ABLATIONS["seeds"], found, resamples=100, seed=0)
    rewards = {arm: cells["mean reward"] for arm, cells in results.items()}
    assert {arm: (cell["value"], cell["n"]) for arm, cell in rewards.items()} == {
        "sft": (37.5, 4), "control_prompts": (pytest.approx(42.5), 4), "control_sequences": (pytest.approx(52.5), 4),
        "grpo": (62.5, 4),
    }  # fmt: skip
    lines = ablation_table(ABLATIONS["seeds"], results)
    assert list(lines.columns[0].cells) == ["sft", "control_prompts", "control_sequences", "grpo"]
    assert [text.splitlines()[1] for text in list(lines.columns[1].cells)[:3]] == ["-25.0", "-20.0", "-10.0"]
    assert (rewards["sft"]["change_low"], rewards["sft"]["change_high"]) == (-25, -25)
    assert results["sft"]["exact match"]["n"] == results["sft"]["CIDEr@0.5"]["n"] == 20


@pytest.mark.parametrize(
    ("ablation", "run", "overrides"),
    [(name, run, overrides) for name, found in ABLATIONS.items() for run, overrides in found.runs.items()],
)
def test_a_run_is_valid_parameters_of_its_own(ablation, run, overrides):
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    changed = copy.deepcopy(given)
    for override in overrides:
        key, _, value = override.partition("=")
        *sections, name = key.split(".")
        section = reduce(getitem, sections, changed)
        assert name in section
        section[name] = yaml.safe_load(value)
    params = Params.model_validate(changed)
    is_default = run == list(ABLATIONS[ablation].runs)[-1]
    assert (changed == given) == is_default
    assert params.model.view_strategy in run or ablation != "views"


def test_rewards_are_left_out_in_every_way():
    left_out = list(ABLATIONS["rewards"].runs.values())
    assert len(left_out) == len(set(left_out)) == 7
    assert list(ABLATIONS["rewards"].runs)[3] == "format + perception"
    assert left_out[3] == ("grpo.reward_weights.semantic=0.0",)


def test_fixed_weights_that_do_not_add_up_are_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("[0.3, 0.5, 0.5]", "[0.3, 0.5, 0.6]"))
    with pytest.raises(ParamsError, match=r"view_weights need w_c \+ w_clip = 1, found 0.5 \+ 0.6"):
        Params.load(path)


def test_an_unknown_ablation_names_those_there_are():
    with pytest.raises(DataError, match=r"Expected an ablation among seeds, modalities.*, found 'colours'"):
        ablate("colours", Params.load(ROOT / "params.yaml"))


STAGE = """
import json, os, pathlib, sys, yaml
sys.path.insert(0, {tests!r})
from test_ablation import REFERENCES, said
modalities = yaml.safe_load(open("params.yaml"))["model"]["modalities"]
folder = pathlib.Path("reports/predictions")
folder.mkdir(parents=True)
assert pathlib.Path(os.environ["R1PIPE_WORK"]) == pathlib.Path({root!r}) / ".work/experiments"
rights = 9 if "points" in modalities else 2
sys.exit(3) if {broken!r} in modalities and len(modalities) == 1 else None
for task, rows in said(rights).items():
    (folder / f"sft-{{task}}.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    (folder / f"references-{{task}}.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in REFERENCES[task]))
"""
PIPELINE = f"""
stages:
  evaluate:
    cmd: {sys.executable} stage.py
    deps: [stage.py]
    params: [model.modalities]
    outs: [reports/predictions]
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A pipeline of one stage, whose model is good where it sees the cloud."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(PIPELINE)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    Path(".gitignore").write_text("/reports/predictions\n")

    def commit(broken):
        Path("stage.py").write_text(STAGE.format(tests=str(ROOT / "tests"), root=str(tmp_path), broken=broken))
        for command in ("init -q", "config user.name t", "config user.email t@t"):
            subprocess.run(["git", *command.split()], check=True)
        if not Path(".dvc").is_dir():
            subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
        subprocess.run(["git", "add", "-A"], check=True)
        subprocess.run(["git", "commit", "-qm", "a pipeline"], check=True)
        return Params.load()

    return commit


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [None, 2], ids=["one after the other", "by DVC's queue"])
def test_every_variant_is_an_experiment_that_runs_once(repository, capfd, jobs):
    params = repository(broken="none")
    results = ablate("modalities", params, jobs=jobs)
    assert {name: cells["exact match"]["value"] for name, cells in results.items()} == {
        "text+image": 20, "text+image+depth": 20, "text+image+points": 90, "full": 90,
    }  # fmt: skip
    kept = read_json(params.paths.ablations / "modalities.json")
    assert kept["rows"] == results
    capfd.readouterr()
    assert ablate("modalities", params, jobs=jobs) == results
    assert "Running stage" not in capfd.readouterr().out
    worse, better = (f"modalities-{name}-{_commit()}" for name in ("text-image", "full"))
    shown, gaps = compare_experiments(worse, better, "sft", params)
    assert gaps[better]["exact match"] == {**gaps[better]["exact match"], "value": 90, "change": 70, "n": 10}
    assert list(ablation_table(shown, gaps).columns[0].cells) == [better, worse]
    with pytest.raises(MissingError, match=rf"grpo-\w+\.jsonl of {better} in DVC's cache, found none"):
        compare_experiments(worse, better, "grpo", params)


@pytest.mark.slow
def test_a_variant_that_fails_is_named(repository):
    with pytest.raises(GateError, match=r"modalities-text-image-\w+ to reach its scores, found exit status"):
        ablate("modalities", repository(broken="image"))


@pytest.mark.slow
def test_variants_that_fail_in_the_queue_are_named_with_where_to_look(repository):
    with pytest.raises(GateError, match=r"found 1 that did not: modalities-text-image-\w+; `dvc queue logs modal"):
        ablate("modalities", repository(broken="image"), jobs=2)
