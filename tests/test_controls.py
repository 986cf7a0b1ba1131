"""The controls differ from each other in the samples a step alone, and one that is trained is not trained again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from r1pipe.files import whole, write_text
from r1pipe.params import Params
from r1pipe.params.training import control_batches
from r1pipe.stages import control
from r1pipe.training.language.sft import continuation
from tools.compose import composed

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_the_controls_take_as_many_prompts_and_as_many_sequences_as_grpo_and_differ_in_nothing_else(scale):
    params = Params.model_validate(composed([f"scale={scale}"]))
    grpo, batches = params.grpo, control_batches(params.grpo)
    prompts, sequences = (continuation(params.sft, grpo, params.control, size) for size in batches.values())
    assert list(batches) == ["prompts", "sequences"]
    assert (prompts.batch_size * grpo.group_size, sequences.batch_size) == (grpo.batch_size, grpo.batch_size)
    assert prompts.model_copy(update={"batch_size": sequences.batch_size}) == sequences
    shared = ("tasks", "max_steps", "lora", "bf16", "save_steps")
    assert [getattr(sequences, name) for name in shared] == [getattr(grpo, name) for name in shared]


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Those of a stage whose inputs are made up, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("FeatureStore", "R1Config", "R1Processor"):
        made_up = SimpleNamespace(load=lambda *_: None, from_pretrained=lambda _: SimpleNamespace(instruct=False))
        monkeypatch.setattr(control, name, made_up)
    monkeypatch.setattr(control, "load_trainable", lambda _: None)
    monkeypatch.setattr(control, "read_corpus", lambda *_: SimpleNamespace(examples=[]))
    monkeypatch.setattr(control, "sft_rows", lambda *_, **__: [])
    given = Params.load(ROOT / "params.yaml")
    return given.model_copy(update={"sft": given.sft.model_copy(update={"max_steps": 1})})


class Trainings:
    """Stands for `fine_tune`: notes the batch of each, and is interrupted in one of a given batch."""

    def __init__(self, interrupted_at):
        self.interrupted_at = interrupted_at
        self.batches = []

    def __call__(self, model, processor, rows, sft, *, work, logs, output, seed):
        self.batches.append(sft.batch_size)
        write_text(work / "checkpoint-1/weights", "half")
        write_text(logs / "metrics.json", f"{sft.batch_size}")
        if sft.batch_size == self.interrupted_at:
            raise InterruptedError
        with whole(output) as draft:
            write_text(draft / "model.safetensors", f"{sft.batch_size}")
        return {"adapters": {"share": 1.0, "norm": 0.1, "learning_rate": 1e-4}}


def delivered(params):
    folders = (params.paths.control, params.paths.logs / "control")
    return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_a_control_that_is_trained_outlives_an_interruption_of_the_other(params, monkeypatch):
    cut, on = Trainings(interrupted_at=params.grpo.batch_size), Trainings(interrupted_at=None)
    monkeypatch.setattr(control, "fine_tune", cut)
    with pytest.raises(InterruptedError):
        control.main(params)
    assert cut.batches == [32, 256]
    assert delivered(params) == set(), "outs appear whole"
    monkeypatch.setattr(control, "fine_tune", on)
    control.main(params)
    assert on.batches == [256]
    assert delivered(params) == {
        f"{folder}/{name}/{file}"
        for folder, file in (("models/control", "model.safetensors"), ("reports/logs/control", "metrics.json"))
        for name in ("prompts", "sequences")
    }
    assert (params.paths.control / "prompts/model.safetensors").read_text() == "32"
    assert not Path(".work/control").exists()


def test_a_first_control_that_is_interrupted_is_gone_on_with(params, monkeypatch):
    cut, on = Trainings(interrupted_at=32), Trainings(interrupted_at=None)
    monkeypatch.setattr(control, "fine_tune", cut)
    with pytest.raises(InterruptedError):
        control.main(params)
    (kept,) = Path(".work/control").glob("*/checkpoints/prompts/checkpoint-1/weights")
    assert kept.is_file()
    monkeypatch.setattr(control, "fine_tune", on)
    control.main(params)
    assert (cut.batches, on.batches) == ([32], [32, 256])


def test_other_processes_than_the_first_move_nothing(params, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(control, "fine_tune", Trainings(interrupted_at=None))
    control.main(params)
    assert delivered(params) == set()
    assert len(list(Path(".work/control").glob("*/models/*"))) == 2
