"""dvc.yaml, params.yaml, conf/, the stages, their code and the flow say the same thing."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from r1pipe.errors import ParamsError
from r1pipe.params import Params
from r1pipe.params.training import control_batches
from r1pipe.training.language.sft import continuation

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NOT_TRACKED = {
    "r1pipe/errors.py",  # sentences
    *(f"r1pipe/params/{path.name}" for path in (ROOT / "r1pipe/params").glob("*.py")),  # `params:` tracks the values
    "r1pipe/progress.py",  # bars
    "r1pipe/stages/__init__.py",  # how threads wait
    "r1pipe/stages/costs.py",  # seconds and memory
    "r1pipe/stages/launch.py",  # processes; how many is a parameter
    "r1pipe/stages/runner.py",  # exit status
    "r1pipe/stages/work.py",  # where an interrupted run is found
}
"""Code that cannot change what a stage writes."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def source(module):
    base = ROOT.joinpath(*module.split("."))
    candidates = [base.with_suffix(".py"), base / "__init__.py"]
    return next((path for path in candidates if path.is_file()), None)


def reached(module):
    """Every file of ours that importing the module runs, packages' own files included."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        path = source(name) if name.startswith("r1pipe") else None
        if path is None or path in seen:
            continue
        seen.add(path)
        parts = name.split(".")
        todo += [".".join(parts[:i]) for i in range(1, len(parts))]
        todo += imports(path)
    return {str(path.relative_to(ROOT)) for path in seen}


def sections_read(stage):
    """The names after `params.` in a stage module."""
    tree = ast.parse((ROOT / f"r1pipe/stages/{stage}.py").read_text())
    attributes = [
        n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("params", "self.params")
    ]
    return {a.attr.rstrip("_") for a in attributes} & {f.rstrip("_") for f in Params.model_fields}


def test_params_file_matches_its_types():
    Params.load(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("line", "misspelt", "sentence"),
    [
        pytest.param("max_steps:", "max_step:", r"max_step: extra inputs are not permitted", id="misspelt key"),
        pytest.param(
            "seed: 0",
            "seed: -1",
            r"base.seed: input should be greater than or equal to 0, found '-1'",
            id="out of range",
        ),
        pytest.param("group_size: 8", "group_size: 7", r"must be a multiple of group_size \(7\)", id="group and batch"),
        pytest.param(
            "processes: 1", "processes: 3", r"sft.batch_size \(32\) must be a multiple of .* \(3\)", id="processes"
        ),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path, line, misspelt, sentence):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace(line, misspelt))
    with pytest.raises(ParamsError, match=sentence):
        Params.load(path)


def test_a_misspelt_parameter_stops_a_stage_with_one_sentence_and_status_1(tmp_path):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("voxel_size:", "voxelsize:"))
    command = [sys.executable, "-m", "r1pipe.stages.prepare"]
    ended = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert re.search(r"prepare\.voxelsize: extra inputs are not permitted", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_the_default_composition_is_the_committed_params_file():
    from tools.compose import composed

    assert composed([]) == yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("scale", sorted(p.stem for p in (ROOT / "conf/scale").glob("*.yaml")))
@pytest.mark.parametrize("data", sorted(p.stem for p in (ROOT / "conf/data").glob("*.yaml")))
def test_every_profile_composes_into_valid_params(scale, data):
    from tools.compose import composed

    Params.model_validate(composed([f"scale={scale}", f"data={data}"]))


@pytest.mark.parametrize("path", sorted((ROOT / "conf/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_configuration(path):
    from accelerate.commands.config import load_config_from_file

    assert load_config_from_file(str(path)).num_machines == 1


def test_every_stage_module_is_in_the_pipeline():
    modules = {p.stem for p in (ROOT / "r1pipe/stages").glob("*.py")} - {
        "__init__",
        "costs",
        "launch",
        "runner",
        "work",
    }
    assert modules == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_its_own_module_and_names_its_worker(stage):
    assert STAGES[stage]["cmd"] == f"python -m r1pipe.stages.{stage}"
    assert STAGES[stage]["meta"]["worker"] in ("cpu", "gpu")
    module = ast.parse((ROOT / f"r1pipe/stages/{stage}.py").read_text())
    assert "main" in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_params_it_reads(stage):
    assert sections_read(stage) - {"paths"} <= {key.split(".")[0] for key in STAGES[stage]["params"]}


def test_the_controls_are_as_old_as_what_they_read_of_grpo_and_no_older():
    nodes = [node for read in (continuation, control_batches) for node in ast.walk(ast.parse(inspect.getsource(read)))]
    read = {n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "grpo"}
    assert {f"grpo.{name}" for name in read} == {key for key in STAGES["control"]["params"] if key.startswith("grpo")}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_code_it_reaches(stage):
    deps = [d for d in STAGES[stage]["deps"] if not d.startswith("${")]
    missing = {
        f
        for f in reached(f"r1pipe.stages.{stage}") - NOT_TRACKED
        if not is_docstring_only(f) and not any(f == d or f.startswith(d + "/") for d in deps)
    }
    assert missing == set()
    assert [d for d in deps if not (ROOT / d).exists()] == []


def is_docstring_only(path):
    return path.endswith("__init__.py") and len(ast.parse((ROOT / path).read_text()).body) <= 1


def test_the_flow_follows_the_dag():
    from flows.dag import read_dag

    order = list(read_dag(ROOT))
    assert set(order) == set(STAGES)
    wired = {name: set(node.upstream) for name, node in read_dag(ROOT).items()}
    assert all(order.index(u) < order.index(stage) for stage, upstream in wired.items() for u in upstream)
    assert {"validate"} < wired["sft"]
    assert {"sft", "grpo", "control"} <= wired["evaluate"]


def test_the_lock_answers_to_the_project():
    from tools.lock import fingerprint

    lock = (ROOT / "requirements.lock").read_text()
    assert fingerprint(ROOT / "pyproject.toml") in lock.splitlines()[0], (
        "requirements.lock is out of date: run `make lock`"
    )
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ]+)", lock, re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[
        1
    ]
    for wanted in map(Requirement, re.findall(r'^  "([^"]+)"', project, re.MULTILINE)):
        assert Version(pins[wanted.name.lower().replace("_", "-")]) in wanted.specifier


@pytest.mark.parametrize(
    "module",
    [
        *("r1pipe", "r1pipe.params", "r1pipe.response", "r1pipe.geometry", "r1pipe.cli"),
        *("r1pipe.evaluation.table", "r1pipe.evaluation.scorecard", "r1pipe.experiments", "r1pipe.ablate"),
    ],
)
def test_light_modules_import_nothing_heavy(module):
    heavy = "ray torch transformers trl spconv prefect bentoml gradio great_expectations google.genai"
    code = f"import sys, {module}; print(*[m for m in {heavy.split()!r} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""


def test_no_file_names_a_machine_path_or_a_registry_host():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(r"/(?:work|root)/[a-z]|files\.pythonhosted|pypi\.org/simple")
    texts = [
        t
        for t in tracked
        if (ROOT / t).suffix in {".py", ".md", ".yaml", ".toml", ".lock"} and t != "tests/test_pipeline.py"
    ]
    assert [t for t in texts if (ROOT / t).is_file() and pattern.search((ROOT / t).read_text())] == []


def test_the_loss_of_every_control_is_plotted():
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    plotted = {file for plot in plots for given in plot.values() for file in given["y"] if "/control/" in file}
    batches = control_batches(Params.load(ROOT / "params.yaml").grpo)
    assert plotted == {f"${{paths.logs}}/control/{name}/plots/metrics/loss.tsv" for name in batches}


def test_one_small_file_of_metrics_is_declared():
    declared = [path for stage in STAGES.values() for path in stage.get("metrics", [])]
    assert declared == ["${paths.metrics}/summary.json"], "DVC's table has a column for every number"
