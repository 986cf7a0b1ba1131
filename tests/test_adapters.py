"""What is trained on a frozen language model moves, and what it learnt is kept: on a checkpoint laid out as the hub's."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_language
import torch
from safetensors.torch import load_file, save_file
from tiny_language import SMALL, FakeText, MadeUpScenes, examples, publish_language

from r1pipe.errors import GateError, MissingError, ModelError
from r1pipe.models.r1 import R1Processor
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.language import added_tokens, load_pretrained, load_tokenizer, text_config
from r1pipe.models.r1.packs import pack, unpack
from r1pipe.models.r1.prompts import messages, with_scene
from r1pipe.models.r1.weights import ADAPTER, load, load_trainable
from r1pipe.params import Params
from r1pipe.params.training import LearningRates, Lora
from r1pipe.serving.package import _copy_model
from r1pipe.stages import sft as stage_sft
from r1pipe.training.language.alignment import scale_start
from r1pipe.training.language.examples import grpo_rows, sft_rows, some
from r1pipe.training.language.grpo import grpo_settings, optimise
from r1pipe.training.language.parts import check_movement
from r1pipe.training.language.sft import fine_tune, learn_to_caption
from tools.compose import composed

LORA = Lora(r=8, alpha=16, dropout=0.0, last_blocks=2)
RATES = LearningRates(projectors=1e-2, selector=1e-2, tokens=3e-2, gains=None)
PARTS = {"adapters", "depth_projector", "object_projector", "point_projector", "token_rows", "view_projector", "view_selector"}  # fmt: skip


def shape(folder: Path):
    return tiny_language.params().model.model_copy(update=SMALL | {"language": str(folder), "frozen_dtype": "bfloat16"})


def rows():
    return sft_rows(list(examples(8)), tiny_language.params().think, instruct=True)


def train_sft(model, processor, folder: Path, **settings):
    """SFT with adapters, in bfloat16 as the paper's."""
    short = {
        "max_steps": 40, "batch_size": 16, "questions_a_room": 2, "save_steps": 100, "warmup_steps": 2, "learning_rate": 3e-2, "lora": LORA,
        "learning_rates": RATES, "bf16": True,
    }  # fmt: skip
    sft = tiny_language.params().sft.model_copy(update=short | settings)
    return fine_tune(
        model, processor, rows(), sft, work=folder / "w", logs=folder / "sft-logs", output=folder / "sft", seed=0
    )


def train_grpo(start: Path, folder: Path, **settings):
    """GRPO at a learning rate at which a bfloat16 weight would round back."""
    chosen, found, store = tiny_language.params(), list(examples(8)), MadeUpScenes()
    short = {
        "max_steps": 3, "batch_size": 16, "group_size": 8, "eval_steps": 3, "max_completion_length": 12, "lora": LORA,
        "learning_rate": 1e-5, "learning_rates": RATES.model_copy(update=dict.fromkeys(("projectors", "selector", "tokens"), 1e-5)),
        "beta": 0.02, "temperature": 0.4, "adam_epsilon": 1e-8, "bf16": True, "scale_rewards": "group", "least_moved": 0.0,
    }  # fmt: skip
    features = {e.sample.scene_id: store.features(e.sample.scene_id) for e in found}
    return optimise(
        load_trainable(start), R1Processor.load(start, store),
        grpo_rows(found, features, chosen.think, instruct=True),
        grpo_rows(some(found, 2), features, chosen.think, instruct=True),
        FakeText(), chosen.grpo.model_copy(update=short | settings),
        work=folder / "w2", logs=folder / "grpo-logs", output=folder / "grpo", seed=0,
    )  # fmt: skip


@pytest.fixture(
    scope="module", params=[pytest.param(True, marks=pytest.mark.slow), False], ids=["one matrix", "a head of its own"]
)
def trained(request, tmp_path_factory):
    """A published checkpoint, 3D-R1 after SFT on it and after GRPO, with how far each part moved.

    That with a head of its own computes in bfloat16 too, as the paper's; for the other it costs a CPU too much.
    """
    folder = tmp_path_factory.mktemp("adapters")
    publish_language(folder / "published", tied=request.param)
    processor, model = tiny_language.processor_and_model(shape(folder / "published"), LORA)
    computes = {"bf16": not request.param}
    sft = train_sft(model, processor, folder, **computes)
    return folder, sft, train_grpo(folder / "sft", folder, **computes)


def ask(folder: Path, blind: bool = False) -> list[str]:
    store = MadeUpScenes()
    answerer = Answerer(load(folder), R1Processor.load(folder, store), store)
    return answerer.complete(
        [e.request for e in examples(8)], think=tiny_language.params().think, max_new_tokens=12, batch_size=8, blind=blind
    )  # fmt: skip


def test_padding_rows_start_as_words_that_differ(tmp_path):
    publish_language(tmp_path, tied=False)
    _, model = tiny_language.processor_and_model(shape(tmp_path), LORA)
    for weights in (model.model.input_rows.weight, model.output_rows.weight):
        assert len(weights) == len(added_tokens(SMALL["num_objects"])) == len(model.config.trained_tokens)
        assert torch.cdist(weights, weights).fill_diagonal_(1).min() > 0.1, "two tokens start alike"


def test_every_part_that_is_trained_has_moved_in_sft_and_in_grpo(trained):
    _, sft, grpo = trained
    assert sft.keys() == grpo.keys() == PARTS
    for stage, movement, least in (("sft", sft, 0.99), ("grpo", grpo, 0.6)):  # as bfloat16, 0.03 to 0.05 in GRPO
        for part, found in movement.items():
            assert found["share"] > least and found["norm"] > 0, f"{part} in {stage}: {found}"
    own = {"adapters": 3e-2, "token_rows": RATES.tokens, "view_selector": RATES.selector}
    rates = {part: found["learning_rate"] for part, found in sft.items()}
    assert rates == {part: own.get(part, RATES.projectors) for part in PARTS}
    assert grpo["adapters"]["learning_rate"] == 1e-5


def test_what_sft_learnt_about_tags_and_identifiers_is_in_the_saved_model(trained):
    folder, *_ = trained
    completions = ask(folder / "sft")
    assert sum(text.startswith("<think>") for text in completions) >= len(completions) - 2
    assert sum("<obj_001>" in text for text in completions) >= len(completions) // 2, completions


def test_sft_and_grpo_share_the_frozen_weights_and_differ_in_what_they_learnt(trained):
    folder, *_ = trained
    base = [(folder / stage / "model.safetensors").read_bytes() for stage in ("sft", "grpo")]
    assert base[0] == base[1]
    sft, grpo = (load_file(folder / stage / ADAPTER / "adapter_model.safetensors") for stage in ("sft", "grpo"))
    assert all(weights.dtype == torch.float32 for weights in (sft | grpo).values())
    differ = sum(int((sft[name] != grpo[name]).sum()) for name in sft)
    assert differ > 0.6 * sum(weights.numel() for weights in sft.values())


def test_a_loaded_model_has_the_dtype_of_each_role(trained, monkeypatch):
    folder, *_ = trained
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a CPU holds frozen weights as float32
    model = load_trainable(folder / "sft")
    for name, weights in model.named_parameters():
        is_frozen_language = ("language_model" in name and "lora_" not in name) or "lm_head" in name
        assert weights.dtype == (torch.bfloat16 if is_frozen_language else torch.float32), name
        assert not (is_frozen_language and weights.requires_grad), name


def test_a_freshly_built_model_of_two_dtypes_runs_and_generates(tmp_path):
    publish_language(tmp_path, tied=False)
    processor, model = tiny_language.processor_and_model(shape(tmp_path), LORA)
    assert model.lm_head.weight.dtype == torch.bfloat16 and model.model.input_rows.weight.dtype == torch.float32
    answerer = Answerer(model, processor, MadeUpScenes())
    requests = [e.request for e in examples(2)]
    options = {"think": tiny_language.params().think, "max_new_tokens": 3, "batch_size": 4}
    assert len(answerer.complete(requests, **options)) == 4
    inputs = answerer._inputs(requests, options["think"], blind=False)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert model.model.object_projector.out.weight.grad.abs().sum() > 0


def test_autocast_leaves_positions_and_view_scores_in_float32(tmp_path, monkeypatch):
    publish_language(tmp_path, tied=True)
    processor, model = tiny_language.processor_and_model(shape(tmp_path), LORA)
    answerer = Answerer(model, processor, MadeUpScenes())
    inputs = answerer._inputs([e.request for e in examples(2)], tiny_language.params().think, blind=False)
    places, scores = (
        taken(monkeypatch, type(part), argument)
        for part, argument in ((model.model.object_projector, 1), (model.model.view_selector, 0))
    )
    with torch.autocast("cpu", torch.bfloat16):
        scene = model.model.embed_scene(inputs["pixel_values"])
    pack = unpack(inputs["pixel_values"], model.config)
    assert all(found.dtype == torch.float32 for found in (scene, *places, *scores))
    assert torch.equal(places[0][..., :6], pack.boxes)
    assert torch.equal(scores[0], pack.view_scores)


def taken(monkeypatch, module, argument):
    """What the forward passes of a module will be given in this place."""
    found, forward = [], module.forward
    monkeypatch.setattr(
        module, "forward", lambda self, *given: (found.append(given[argument]), forward(self, *given))[1]
    )
    return found


def test_merging_in_float32_keeps_what_grpo_learnt_and_changes_no_text(trained, tmp_path):
    folder, *_ = trained
    merged = {}
    for stage in ("sft", "grpo"):
        _copy_model(folder / stage, tmp_path / stage, merge_adapters=True)
        assert not (tmp_path / stage / ADAPTER).exists()
        weights = load_file(tmp_path / stage / "model.safetensors")
        merged[stage] = {k: w for k, w in weights.items() if ".layers." in k and k.endswith("_proj.weight")}
    differ = sum(int((weights != merged["grpo"][name]).sum()) for name, weights in merged["sft"].items())
    share = differ / sum(weights.numel() for weights in merged["sft"].values())
    assert share > 0.6, f"{share:.1%} of the adapted weights differ from SFT's"  # rounded to bfloat16, 2 to 6 %
    assert ask(tmp_path / "grpo") == ask(folder / "grpo")


def test_the_reference_of_grpo_is_where_it_started(trained, tmp_path):
    """Its divergence begins at 0: it is SFT's adapters; switched off, they would leave what the hub published."""
    folder, *_ = trained
    train_grpo(folder / "sft", tmp_path, max_steps=1)
    before, after = (
        load_file(at / ADAPTER / "adapter_model.safetensors") for at in (folder / "sft", tmp_path / "grpo")
    )
    assert before.keys() == after.keys()
    _, first, *_ = (tmp_path / "grpo-logs/plots/metrics/eval_kl.tsv").read_text().splitlines()
    step, divergence = first.split("\t")
    assert int(step) == 0
    assert abs(float(divergence)) < 1e-6


def test_scene_tokens_start_as_large_as_words(tmp_path):
    publish_language(tmp_path, tied=True)
    _, model = tiny_language.processor_and_model(shape(tmp_path), LORA)
    scenes = [MadeUpScenes().features(f"scene{i:04d}") for i in range(8)]
    scale_start(model, scenes)
    for found in sizes_in_words(model, scenes).values():
        torch.testing.assert_close(found, torch.tensor(1.0))


def sizes_in_words(model, scenes):
    """How large the tokens of scenes are, by what they are of, in words."""
    packs = np.stack([pack(s, np.zeros((len(s.cameras), 3), np.float32), model.config) for s in scenes])
    parts, inner = unpack(torch.from_numpy(packs), model.config), model.model
    words = model.get_input_embeddings().weight.float().norm(dim=1).mean()
    tokens = {
        "objects": inner.project_objects(parts)[parts.is_object.bool()],
        "points": inner.point_projector(parts.points, parts.point_xyz),
        "views": inner.view_projector(parts.views, parts.cameras),
    }
    return {name: found.norm(dim=-1).mean() / words for name, found in tokens.items()}


def test_captions_align_the_projectors_and_nothing_else_and_once(tmp_path):
    publish_language(tmp_path / "published", tied=True)
    processor, model = tiny_language.processor_and_model(shape(tmp_path / "published"), LORA)
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    sft = tiny_language.params().sft.model_copy(
        update={"caption_steps": 3, "caption_learning_rate": 1e-2, "batch_size": 4, "least_moved": 0.9}
    )
    given = {"work": tmp_path / "captions", "logs": tmp_path / "logs", "seed": 0}
    learn_to_caption(model, processor, rows(), sft, **given)
    moved = {name for name, weights in model.named_parameters() if not torch.equal(weights, before[name])}
    assert moved and all("projector" in name for name in moved)
    assert all(weights.requires_grad for weights in model.parameters())
    _, again = tiny_language.processor_and_model(shape(tmp_path / "published"), LORA)
    learn_to_caption(again, processor, None, sft, **given)  # an interrupted stage finds them
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_stage_sizes_and_aligns_the_projectors_of_a_pretrained_model_before_it_fine_tunes(tmp_path, monkeypatch):
    publish_language(tmp_path / "published", tied=True)
    found, store, done = list(examples(8)), MadeUpScenes(), []
    features = {e.sample.scene_id: store.features(e.sample.scene_id) for e in found}
    stand_ins = {
        "FeatureStore": SimpleNamespace(load=lambda _: store),
        "read_corpus": lambda *_: SimpleNamespace(examples=found, features=features, num_left_out=0),
        "detection_words": lambda *_: {scene: {0: "red chair"} for scene in features},
        "align": lambda *_, steps, **__: done.append(("align", steps)),
        "learn_to_caption": lambda *_, **__: done.append("captions"),
        "fine_tune": lambda model, *_, **__: done.append(sizes_in_words(model, list(features.values()))),
        "record_movement": lambda *_: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(stage_sft, name, stand_in)
    monkeypatch.chdir(tmp_path)
    params = tiny_language.params()
    sft = params.sft.model_copy(update={"lora": LORA, "alignment_steps": 5, "caption_steps": 3})
    stage_sft.main(params.model_copy(update={"model": shape(tmp_path / "published"), "sft": sft}))
    *before, sizes = done
    assert before == [("align", 5), "captions"]
    assert float(sizes["objects"]) == pytest.approx(1, rel=1e-3)


def test_the_papers_recipe_is_what_trl_is_told(tmp_path):
    params = Params.model_validate(composed(["scale=paper"]))
    settings = grpo_settings(params.grpo, [0.3, 0.4, 0.3], tmp_path, seed=0)
    assert (settings.loss_type, settings.scale_rewards, settings.beta) == ("grpo", "group", 0.02)
    assert settings.lr_scheduler_type == "constant" and settings.learning_rate == 1e-6
    assert params.sft.learning_rates.projectors >= 100 * params.sft.learning_rate and params.sft.caption_steps > 0
    for stage in (params.sft, params.grpo, params.control):
        assert stage.learning_rates.selector >= 1e-3, "three weights around 0.3 and 0.5 would stand still"
    assert params.synthesize.num_samples == 30_000 and params.synthesize.gemini.budget is not None
    assert params.sft.max_steps * params.sft.batch_size == 2 * params.synthesize.num_samples


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"model": {"frozen_dtype": "bfloat16"}}, r"frozen_dtype \(bfloat16\) needs sft\.lora", id="no adapters"),
        pytest.param({"sft": {"lora": LORA.model_dump()}}, r"grpo\.lora \(None\) must be sft\.lora", id="thawed"),
    ],
)  # fmt: skip
def test_parameters_that_would_train_what_is_frozen_are_refused(changes, sentence):
    values = composed([])
    with pytest.raises(ValueError, match=sentence):
        Params.model_validate(values | {name: values[name] | own for name, own in changes.items()})


def test_a_part_that_stood_still_stops_the_stage():
    stood = {"token_rows": {"share": 0.03, "norm": 1e-6, "learning_rate": 1e-6}}
    with pytest.raises(GateError, match=r"Expected sft to change at least 50% .* found 3\.0% of token_rows .* 1e-06\."):
        check_movement("sft", stood, 0.5)


def test_the_language_models_own_chat_template_is_used_with_task_grammar_and_units_in_words(trained):
    folder, *_ = trained
    processor = R1Processor.load(folder / "sft", MadeUpScenes())
    turns = with_scene(messages(next(iter(examples())).request, tiny_language.params().think, instruct=True))
    text = processor.apply_chat_template([turns], add_generation_prompt=True, tokenize=False)[0]
    assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>assistant\n")
    for words in ("metres", "<think>", "<answer>", "<scene>Answer: what color is the chair?"):
        assert words in text


def harm_architecture(folder: Path) -> None:
    write = json.loads((folder / "config.json").read_text()) | {"model_type": "t5"}
    (folder / "config.json").write_text(json.dumps(write))


def harm_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def harm_vocabulary(folder: Path) -> None:
    found = json.loads((folder / "config.json").read_text()) | {"vocab_size": 200}
    (folder / "config.json").write_text(json.dumps(found))


def harm_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only_gguf(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "model.Q4_1.gguf").write_bytes(b"GGUF")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        pytest.param(harm_architecture, r"^Expected a causal language model in .*, found t5\.$", id="other architecture"),
        pytest.param(harm_template, r"brings a chat template in .*, found none; name an instruct", id="no chat template"),
        pytest.param(harm_vocabulary, r"^Expected embeddings for all \d+ tokens .*, found 200 rows\.$", id="vocabulary"),
        pytest.param(harm_weights, r"^Expected a whole pretrained language model in .*fetch it again\.$", id="half"),
        pytest.param(only_gguf, r"^Expected config\.json and safetensors .*found model\.Q4_1\.gguf; ", id="gguf"),
        pytest.param(shutil.rmtree, r"found no such folder; `make pretrained` fetches", id="nothing"),
    ],
)  # fmt: skip
def test_a_language_model_that_cannot_be_read_is_one_sentence(tmp_path, harm, sentence):
    publish_language(tmp_path / "published", tied=True)
    harm(tmp_path / "published")
    with pytest.raises((MissingError, ModelError), match=sentence):
        text_config(shape(tmp_path / "published"), load_tokenizer(shape(tmp_path / "published")))
        load_pretrained(shape(tmp_path / "published"))


def test_an_adapter_of_another_base_is_refused(trained, tmp_path):
    folder, *_ = trained
    shutil.copytree(folder / "sft", tmp_path / "mixed")
    base = load_file(tmp_path / "mixed/model.safetensors")
    name = next(name for name in base if "q_proj" in name)
    save_file(base | {name: base[name] + 1}, tmp_path / "mixed/model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"Expected an adapter trained on the model beside it .*, found one of"):
        load_trainable(tmp_path / "mixed")
