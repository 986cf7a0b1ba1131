"""Processes: every profile shares its batches among them as TRL demands, or says which numbers would do; one has one GPU."""

import os
import re
import signal
from functools import cache
from pathlib import Path

import pytest
import yaml
from accelerate import PartialState
from accelerate.state import AcceleratorState
from pydantic import ValidationError
from tiny_language import ROOT
from trl import SFTConfig

from r1pipe.errors import GateError, ParamsError
from r1pipe.params import Params
from r1pipe.params.run import Launch
from r1pipe.params.training import Training
from r1pipe.stages.runner import run
from r1pipe.training.language.grpo import grpo_settings
from r1pipe.training.language.setup import trainer_settings
from tools.compose import composed

SCALES = sorted(path.stem for path in (ROOT / "conf/scale").glob("*.yaml"))
REFUSED = {
    ("paper", 8): "sft.batch_size",
    ("small", 8): "sft.batch_size",
    ("pretrained", 8): "the batch of control_prompts",
}
"""A batch of theirs that leaves a remainder: 12, 4 and 4."""


@cache
def profile(scale):
    return composed([f"scale={scale}"])


def changed(scale, **sections):
    """A profile's values with some of them changed."""
    values = profile(scale)
    return values | {name: values[name] | given for name, given in sections.items()}


@pytest.fixture
def among(monkeypatch):
    """Have accelerate believe that there are so many processes."""
    begin = PartialState.__init__

    def believe(number):
        def begun(self, *given, **named):
            begin(self, *given, **named)
            self.num_processes = number

        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setattr(PartialState, "__init__", begun)

    yield believe
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", SCALES)
def test_processes_that_a_profile_accepts_are_accepted_by_trl_and_fill_the_batch(scale, processes, among, tmp_path):
    values = changed(scale, launch={"processes": processes})
    if (scale, processes) in REFUSED:
        with pytest.raises(ValidationError, match=rf"{REFUSED[scale, processes]} .* launch\.processes \({processes}\)"):
            Params.model_validate(values)
        return
    params = Params.model_validate(values)
    among(processes)
    trained = {
        "sft": (params.sft, SFTConfig(**trainer_settings(params.sft, tmp_path, seed=0))),
        "grpo": (params.grpo, grpo_settings(params.grpo, [1.0], tmp_path, seed=0)),
    }
    for section, settings in trained.values():
        assert settings.world_size == processes
        a_pass = settings.per_device_train_batch_size
        assert a_pass * settings.gradient_accumulation_steps * processes == section.batch_size
        assert a_pass <= (section.device_batch_size or section.batch_size)
    grpo = trained["grpo"][1]
    assert grpo.generation_batch_size == params.grpo.batch_size
    assert grpo.per_device_eval_batch_size % params.grpo.group_size == 0


@pytest.mark.parametrize(
    ("batch_size", "at_most", "processes", "a_pass"),
    [(12, 4, 1, 4), (12, 4, 2, 3), (12, 4, 4, 3), (12, 4, 12, 1), (96, None, 8, 12), (4, 16, 2, 2), (14, 4, 2, 1)],
)
def test_a_pass_takes_the_largest_divisor_of_the_share_that_the_memory_allows(batch_size, at_most, processes, a_pass):
    sizes = {"batch_size": batch_size, "device_batch_size": at_most}
    assert Training.model_construct(**sizes).sequences_a_pass(processes) == a_pass


@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_processes_that_leave_a_remainder_are_refused_with_numbers_that_work(name, tmp_path):
    def load(processes, batch_size):
        path = tmp_path / "params.yaml"
        sizes = {"sft": 120, "grpo": 120} | {name: batch_size}
        batches = {section: {"batch_size": size} for section, size in sizes.items()}
        path.write_text(yaml.safe_dump(changed("paper", launch={"processes": processes}, **batches)))
        return Params.load(path)

    with pytest.raises(ParamsError) as refused:
        load(5, 96)
    assert f"{name}.batch_size (96) must be a multiple of launch.processes (5)" in str(refused.value)
    assert "found '{" not in str(refused.value)
    sharing, near = re.search(
        r": ([\d, or]+) processes could share it, .*? share ([\d or]+)", str(refused.value)
    ).groups()
    counts, sizes = ([int(number) for number in re.findall(r"\d+", part)] for part in (sharing, near))
    assert counts == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]
    assert sizes == {"grpo": [80, 120]}.get(name, [95, 100])
    for count in counts:
        assert Launch(processes=count, accelerate=Path("x")).refusal(name, 96) is None
    for size in sizes:
        assert load(5, size).launch.processes == 5


def test_of_a_batch_smaller_than_the_processes_the_next_larger_is_named():
    sentence = Launch(processes=64, accelerate=Path("x")).refusal("sft.batch_size", 12)
    assert sentence.endswith("1, 2, 3, 4, 6 or 12 processes could share it, and 64 processes could share 64")


@pytest.mark.parametrize(
    ("visible", "trains", "launched", "left"),
    [
        pytest.param("2,3", True, False, "2", id="the first of a list"),
        pytest.param("GPU-8a, GPU-9b", True, False, "GPU-8a", id="by name"),
        pytest.param("", True, False, "", id="none"),
        pytest.param(None, True, False, "0", id="all"),
        pytest.param("2,3", False, False, "2,3", id="a stage that does not train"),
        pytest.param("2,3", True, True, "2,3", id="launched"),
    ],
)
def test_a_stage_that_trains_in_one_process_sees_one_gpu(tmp_path, monkeypatch, visible, trains, launched, left):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if launched:
        monkeypatch.setenv("LOCAL_RANK", "0")
    seen = []

    def main(_):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        raise GateError("Seen.")

    with pytest.raises(SystemExit):
        run(main, in_processes=trains)
    assert seen == [left]
