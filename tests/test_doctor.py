"""Before a run, the doctor says what a profile trains, needs and lacks here."""

import json
import socket
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config
from typer.testing import CliRunner

from r1pipe.cli import app
from r1pipe.doctor import examine_profile, load_profile, parts, plan
from r1pipe.doctor.findings import GIB
from r1pipe.doctor.machine import Hardware
from r1pipe.errors import DataError
from r1pipe.models.r1 import R1Config
from r1pipe.models.r1.modeling import Projector

ROOT = Path(__file__).parents[1]
LAPTOP, SERVER = Hardware(24 * GIB, ()), Hardware(512 * GIB, (80 * GIB,) * 8)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)


def findings(scale, *overrides, hardware=LAPTOP, home=ROOT):
    return {found.what: found for found in examine_profile(load_profile(ROOT, scale, overrides), hardware, home)}


def missing(*arguments, **options):
    return [what for what, found in findings(*arguments, **options).items() if found.state == "missing"]


def language_folder(home, name="pretrained/language", **config):
    folder = home / name
    folder.mkdir(parents=True)
    sizes = {"vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    text = sizes | {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(text | config))
    for file in ("model.safetensors", "tokenizer_config.json"):
        (folder / file).touch()
    return ["model.language=" + name, "model.revision=null"]


def test_tiny_needs_nothing_that_is_not_here():
    assert missing("tiny") == []


def test_a_stage_without_adapters_trains_everything_and_grpo_its_gains_at_a_rate_of_their_own():
    params = load_profile(ROOT, "tiny")
    rates = {part.name: rate for part, rate in plan(params, params.grpo, ROOT).trained.items()}
    assert rates["language model"] == params.grpo.learning_rate
    assert rates["gains of normalisation"] == params.grpo.learning_rates.gains
    assert set(plan(params, params.sft, ROOT).trained.values()) == {params.sft.learning_rate}
    assert plan(params, params.sft, ROOT).frozen == 0


def test_with_adapters_the_language_model_is_frozen_in_its_own_precision():
    params = load_profile(ROOT, "paper")
    planned = plan(params, params.sft, ROOT)
    assert planned.frozen == pytest.approx(7.616e9, rel=1e-3)  # as the publisher counts Qwen2.5-7B
    assert planned.frozen_bytes == 2 * planned.frozen
    assert {part.group for part in planned.trained} == {"projectors", "selector", "adapters", "tokens"}


@pytest.mark.parametrize(
    ("overrides", "gone"),
    [
        (["model.modalities=[points]"], {"projector of views", "projector of depths"}),
        (["model.modalities=[image,depth]"], {"projector of objects", "projector of points"}),
        (["model.view_strategy=random"], {"view selector"}),
    ],
)
def test_what_is_off_is_not_trained(overrides, gone):
    whole, params = load_profile(ROOT, "tiny"), load_profile(ROOT, "tiny", overrides)
    names = [{part.name for part in plan(p, p.sft, ROOT).trained} for p in (whole, params)]
    assert names[0] - names[1] == gone


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_is_as_large_as_transformers_builds_it(tied, tmp_path):
    overrides = language_folder(tmp_path, model_type="llama", tie_word_embeddings=tied)
    counted = parts.language_sizes(load_profile(ROOT, "paper", overrides).model, tmp_path).weights
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "pretrained/language"))
    assert counted == sum(weights.numel() for weights in built.parameters())


@pytest.mark.parametrize(("width", "num_places"), [(64, 7), (48, 3)])
def test_a_projector_is_as_large_as_the_model_has_it(width, num_places):
    config = R1Config(Qwen2Config(hidden_size=32))
    built = Projector(width, num_places, config)
    assert config.num_bands == parts.NUM_BANDS
    assert parts._projector(width, num_places, 32) == sum(weights.numel() for weights in built.parameters())


def test_a_configuration_without_sizes_is_one_sentence(tmp_path):
    overrides = language_folder(tmp_path)
    (tmp_path / "pretrained/language/config.json").write_text('{"model_type": "gpt2"}')
    params = load_profile(ROOT, "paper", overrides)
    with pytest.raises(
        DataError, match=r"Expected the sizes of a language model in .*config\.json, found no 'hidden_size'"
    ):
        plan(params, params.sft, tmp_path)


def test_published_weights_are_looked_for_on_this_disk_and_named_with_the_command_that_fetches_them():
    found = findings("paper")
    for what in ("language model", "SigLIP-2", "Depth-Anything", "CLIP"):
        assert found[what].state == "missing"
        assert found[what].purpose.startswith("`hf download ")
    assert found["language model"].purpose.startswith("`hf download Qwen/Qwen2.5-VL-7B-Instruct --revision main`")


def test_weights_in_the_cache_are_found_and_half_of_them_are_not_enough(tmp_path):
    repository = tmp_path / "hub/models--Qwen--Qwen2.5-VL-7B-Instruct"
    folder = repository / "snapshots/abc"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    config = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 28, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({"text_config": {"vocab_size": 1000, **config}}))
    (folder / "tokenizer_config.json").touch()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    (folder / shards[0]).touch()
    assert findings("paper")["language model"].found.endswith(f": no {shards[1]}")
    (folder / shards[1]).touch()
    assert findings("paper")["language model"].state == "ok"


def test_a_language_model_of_make_pretrained_that_is_not_there_says_so(tmp_path):
    overrides = ["model.language=pretrained/language", "model.revision=null"]
    found = findings("paper", *overrides, home=tmp_path)["language model"]
    assert (found.state, found.purpose) == ("missing", "`make pretrained` fetches it")
    assert found.found == "pretrained/language, no such folder: no config.json"
    language_folder(tmp_path)
    assert findings("paper", *overrides, home=tmp_path)["language model"].state == "ok"


def test_clip_of_a_folder_and_of_a_file_is_looked_for_there(tmp_path):
    (tmp_path / "clip").mkdir()
    local = ["backbones.clip.model='local-dir:clip'"]
    assert "CLIP" in missing("paper", *local, home=tmp_path)
    (tmp_path / "clip/open_clip_config.json").touch()
    (tmp_path / "clip.pt").touch()
    assert "CLIP" not in missing("paper", *local, home=tmp_path)
    assert "CLIP" not in missing("paper", "backbones.clip.pretrained=clip.pt", home=tmp_path)
    assert "CLIP" in missing("paper", "backbones.clip.pretrained=nothing", home=tmp_path)


def test_scans_are_missing_where_a_profile_has_no_rooms_of_its_own(tmp_path):
    assert "scans" in missing("paper")
    real = ["data=scannet", f"paths.scannet={tmp_path}"]
    assert findings("paper", *real)["paths.scannet"].found.endswith(": no scans, meta, annotations")
    for folder in ("scans", "meta", "annotations"):
        (tmp_path / folder).mkdir()
    assert findings("paper", *real)["paths.scannet"].state == "ok"


def test_a_paid_teacher_needs_a_key_whose_value_is_not_shown(monkeypatch):
    assert "GEMINI_API_KEY" in missing("paper")
    assert "GEMINI_API_KEY" not in findings("paper", "synthesize.teacher=scripted")
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret-key")
    found = findings("paper")["GEMINI_API_KEY"]
    assert (found.state, found.found) == ("ok", "GEMINI_API_KEY set")


@pytest.mark.parametrize(
    ("hardware", "overrides", "states"),
    [
        (LAPTOP, [], ("optional", "ok")),
        (Hardware(12 * GIB, ()), [], ("optional", "missing")),
        (LAPTOP, ["launch.processes=3"], ("optional", "missing")),
        (SERVER, ["launch.processes=3"], ("ok", "ok")),
        (Hardware(512 * GIB, (80 * GIB,) * 2), ["launch.processes=3"], ("missing", "ok")),
        (Hardware(512 * GIB, (80 * GIB, 12 * GIB)), [], ("ok", "missing")),
    ],
)
def test_processes_need_gpus_and_memory_for_frozen_and_trained_weights(hardware, overrides, states):
    found = findings("paper", *overrides, hardware=hardware)
    assert (found["GPUs"].state, found["memory"].state) == states


def test_the_command_shows_the_plan_asks_no_network_and_ends_with_status_1_where_something_is_missing(monkeypatch):
    asked = []

    def refuse(_, address):
        asked.append(address)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["doctor", "--profile", "paper"], env={"COLUMNS": "200"})
    assert (done.exit_code, asked) == (1, [])
    assert done.stderr.startswith("Expected what the profile paper needs, found it lacks: language model, CLIP, ")
    assert done.stderr.count("\n") == 1
    assert "rows of added tokens" in done.stdout and "bfloat16" in done.stdout


def test_a_profile_that_can_run_says_how(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["doctor", "--profile", "tiny", "-S", "sft.max_steps=10"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.endswith("dvc exp run -S scale=tiny -S sft.max_steps=10\n")
