"""What is trained on a frozen language model moves, and what it learnt is kept: on a checkpoint laid out as the hub's."""

import json
import shutil
from pathlib import Path

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
    assert sft["adapters"]["learning_rate"] == 3e-2 and grpo["adapters"]["learning_rate"] == 1e-5


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
    seen = []
    forward = type(model.model.object_projector).forward
    monkeypatch.setattr(
        type(model.model.object_projector),
        "forward",
        lambda self, features, places: (seen.append(places), forward(self, features, places))[1],
    )
    with torch.autocast("cpu", torch.bfloat16):
        scene = model.model.embed_scene(inputs["pixel_values"])
    pack = unpack(inputs["pixel_values"], model.config)
    assert scene.dtype == torch.float32 and all(places.dtype == torch.float32 for places in seen)
    assert torch.equal(seen[0][..., :6], pack.boxes)


def test_merging_in_float32_changes_no_text(trained, tmp_path):
    folder, *_ = trained
    _copy_model(folder / "grpo", tmp_path / "merged", merge_adapters=True)
    assert not (tmp_path / "merged" / ADAPTER).exists()
    assert ask(tmp_path / "merged") == ask(folder / "grpo")


def test_the_reference_of_grpo_is_where_it_started(trained, tmp_path):
    """With a KL term so strong that nothing else counts, GRPO stays at SFT's adapters, not at none."""
    folder, *_ = trained
    before = load_file(folder / "sft" / ADAPTER / "adapter_model.safetensors")
    train_grpo(folder / "sft", tmp_path, max_steps=1)
    logged = (tmp_path / "grpo-logs/plots/metrics").glob("kl.tsv")
    after = load_file(tmp_path / "grpo" / ADAPTER / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for path in logged:
        assert abs(float(path.read_text().splitlines()[1].split("\t")[1])) < 1e-4, "the reference is another model"


def test_scene_tokens_start_as_large_as_words(tmp_path):
    publish_language(tmp_path, tied=True)
    _, model = tiny_language.processor_and_model(shape(tmp_path), LORA)
    scenes = [MadeUpScenes().features(f"scene{i:04d}") for i in range(8)]
    scale_start(model, scenes)
    packs = np.stack([pack(s, np.zeros((len(s.cameras), 3), np.float32), model.config) for s in scenes])
    parts = unpack(torch.from_numpy(packs), model.config)
    words = model.get_input_embeddings().weight.float().norm(dim=1).mean()
    for found in (
        model.model.project_objects(parts)[parts.is_object.bool()],
        model.model.point_projector(parts.points, parts.point_xyz),
        model.model.view_projector(parts.views, parts.cameras),
    ):
        torch.testing.assert_close(found.norm(dim=-1).mean(), words)


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


def test_the_papers_recipe_is_what_trl_is_told(tmp_path):
    params = Params.model_validate(composed(["scale=paper"]))
    settings = grpo_settings(params.grpo, [0.3, 0.4, 0.3], tmp_path, seed=0)
    assert (settings.loss_type, settings.scale_rewards, settings.beta) == ("grpo", "group", 0.02)
    assert settings.lr_scheduler_type == "constant" and settings.learning_rate == 1e-6
    rates = params.sft.learning_rates
    assert (
        rates.projectors >= 100 * params.sft.learning_rate and rates.selector >= 1e-3 and params.sft.caption_steps > 0
    )
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
