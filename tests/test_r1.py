"""The model reads the scene, learns through TRL, and refuses what does not fit."""

from pathlib import Path

import numpy as np
import pytest
import tiny_language
import torch
from tiny_language import SMALL, WORDS, FakeText, MadeUpScenes, examples, publish_language
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from r1pipe.errors import ModelError
from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor, SceneReader, scene_reference
from r1pipe.models.r1.language import added_tokens, train_tokenizer
from r1pipe.models.r1.modeling import place
from r1pipe.models.r1.packs import pack, pack_size, unpack
from r1pipe.models.r1.prompts import Request, messages, with_scene
from r1pipe.models.r1.weights import load_trainable
from r1pipe.params import Params
from r1pipe.params.training import Lora
from r1pipe.training.language.examples import grpo_rows, sft_rows, some
from r1pipe.training.language.grpo import optimise
from r1pipe.training.language.setup import build_model
from r1pipe.training.language.sft import fine_tune

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def params() -> Params:
    return Params.load(ROOT / "params.yaml")


@pytest.fixture
def processor_and_model(params):
    return tiny_language.processor_and_model(params.model.model_copy(update=SMALL))


def inputs(processor, params, scenes=("scene0001", "scene0002"), question="what color is the chair?"):
    requests = [Request(scene, "qa", question) for scene in scenes]
    texts = processor.apply_chat_template(
        [with_scene(messages(r, params.think, instruct=processor.image_processor.config.instruct)) for r in requests],
        add_generation_prompt=True,
        tokenize=False,
    )
    references = [scene_reference(scene, question) for scene in scenes]
    return processor(images=references, text=texts, padding=True, return_tensors="pt")


def test_the_scene_changes_the_logits(processor_and_model, params):
    processor, model = processor_and_model
    batch = inputs(processor, params)
    seen = model(**batch).logits
    batch["pixel_values"] = torch.zeros_like(batch["pixel_values"])
    assert not torch.allclose(seen, model(**batch).logits, atol=1e-3)


@pytest.mark.parametrize(
    ("modalities", "count", "part"),
    [
        pytest.param(("image",), 2, "views", id="views alone"),
        pytest.param(("depth",), 2, "depths", id="depths alone"),
        pytest.param(("points",), 8 + 4, "objects", id="the cloud alone"),
        pytest.param(("image", "points"), 2 + 8 + 4, "points", id="two of three"),
    ],
)
def test_the_model_sees_the_modalities_that_it_has_and_no_other(params, modalities, count, part):
    shape = params.model.model_copy(
        update={"num_objects": 8, "num_views": 2, "hidden_size": 32, "num_hidden_layers": 2, "modalities": modalities}
    )
    tokenizer, store = train_tokenizer(WORDS, 400, shape.num_objects), MadeUpScenes()
    model = build_model(shape, tokenizer, store.features("scene0000"), lora=None, view_weight_pull=0.1, seed=0)
    batch = inputs(R1Processor(SceneReader(model.config, store), tokenizer), params)
    assert (batch["input_ids"][0] == model.config.image_token_id).sum() == count == model.config.num_scene_tokens
    batch["pixel_values"].requires_grad_()
    model(**batch).logits.sum().backward()
    seen = unpack(batch["pixel_values"].grad, model.config)
    reached = {name for name in ("objects", "points", "views", "depths") if getattr(seen, name).any()}
    expected = {"image": {"views"}, "depth": {"depths"}, "points": {"objects", "points"}}
    assert part in reached
    assert reached == set().union(*(expected[modality] for modality in modalities))


def test_an_identifier_that_follows_its_object_is_a_token_of_its_own(params):
    following = SMALL | {"identifiers": "following"}
    processor, model = tiny_language.processor_and_model(params.model.model_copy(update=following))
    batch = inputs(processor, params)
    scene = model.model.embed_scene(batch["pixel_values"])
    parts = unpack(batch["pixel_values"], model.config)
    first = model.config.first_object_id
    names = model.model.embed_tokens(torch.arange(first, first + 8)) * parts.is_object.unsqueeze(-1)
    assert scene.shape[1] == model.config.num_scene_tokens == 2 * 8 + 4 + 2 * 2
    assert parts.is_object.sum() == 2 * 5
    torch.testing.assert_close(scene[:, 0:16:2], model.model.project_objects(parts) * parts.is_object.unsqueeze(-1))
    torch.testing.assert_close(scene[:, 1:16:2], names)
    assert model(**batch).logits.isfinite().all()


def test_gradients_reach_every_part_and_every_view_weight(processor_and_model, params):
    processor, model = processor_and_model
    batch = inputs(processor, params)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_cached_generation_equals_uncached(processor_and_model, params):
    processor, model = processor_and_model
    batch = inputs(processor, params)
    options = {"max_new_tokens": 6, "do_sample": False, "suppress_tokens": [model.config.image_token_id]}
    assert torch.equal(model.generate(**batch, **options), model.generate(**batch, **options, use_cache=False))


def test_saving_and_loading_keeps_every_weight(processor_and_model, params, tmp_path):
    processor, model = processor_and_model
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    batch = inputs(processor, params)
    loaded = R1ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(model.eval()(**batch).logits, loaded.eval()(**batch).logits)
    again = inputs(R1Processor.load(tmp_path, MadeUpScenes()), params)
    assert all(torch.equal(batch[name], again[name]) for name in batch)


@pytest.mark.parametrize("tied", [True, False], ids=["3B: one matrix", "7B: an output matrix of its own"])
def test_the_language_part_of_a_published_vision_language_model_comes_whole(params, tmp_path, tied):
    publish_language(tmp_path / "published", tied=tied)
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "published", dtype=torch.float32).eval()
    shape = params.model.model_copy(update=SMALL | {"language": str(tmp_path / "published")})
    tiny_language.processor_and_model(shape)[1].save_pretrained(tmp_path / "ours")
    ours = R1ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    words = torch.tensor([[5, 30, 7, 12]])
    own = len(AutoTokenizer.from_pretrained(tmp_path / "published")) - len(added_tokens(0))  # whose rows are our own
    found, wanted = (model(input_ids=words).logits[..., :own] for model in (ours, theirs))
    torch.testing.assert_close(found, wanted)
    is_one = ours.lm_head.weight is ours.get_input_embeddings().weight
    assert is_one == tied == ours.config.tie_word_embeddings


def test_a_placeholder_mismatch_names_both_counts():
    where = torch.tensor([[True, True, False], [True, False, False]])
    with pytest.raises(ModelError, match=r"Expected 2 placeholders.*\[2, 1\]"):
        place(torch.zeros(2, 3, 4), torch.ones(2, 2, 4), where)


def test_unpacking_gives_back_what_was_packed(processor_and_model):
    _, model = processor_and_model
    store = MadeUpScenes()
    features, scores = store.features("scene0003"), store.view_scores("scene0003", "")
    row = pack(features, scores, model.config)
    assert row.shape == pack_size(model.config)
    parts = unpack(torch.from_numpy(row)[None], model.config)
    assert parts.is_object[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    for found, wanted in [
        (parts.boxes[0, :5], features.object_boxes),
        (parts.objects[0, :5], features.object_features),
        (parts.points[0], features.point_features),
        (parts.views[0], features.view_features),
        (parts.depths[0], features.depth_features),
        (parts.view_scores[0], scores),
    ]:
        np.testing.assert_array_equal(found.numpy(), wanted)


def test_features_of_another_width_are_refused(processor_and_model):
    _, model = processor_and_model
    model.config.object_width = 17
    with pytest.raises(ModelError, match="Expected object width of 17 in the features of scene scene0004, found 16"):
        pack(MadeUpScenes().features("scene0004"), np.zeros((6, 3), np.float32), model.config)


def test_questions_about_two_scenes_do_not_mix(processor_and_model, params):
    processor, model = processor_and_model
    both = model.eval()(**inputs(processor, params)).logits[1]
    alone = model.eval()(**inputs(processor, params, scenes=("scene0002",))).logits[0]
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)


def test_a_completion_follows_its_prompt_without_a_gap(processor_and_model, params):
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    processor, _ = processor_and_model
    rows = list(sft_rows(list(examples()), params.think, instruct=False))[:4]
    batch = DataCollatorForVisionLanguageModeling(processor=processor, completion_only_loss=True)(rows)
    for mask in batch["attention_mask"].tolist():
        assert "0" not in "".join(map(str, mask)).strip("0"), "padding between prompt and completion"
    assert (batch["labels"] != -100).sum() > 0


@pytest.mark.parametrize(
    "lora",
    [
        pytest.param(None, marks=pytest.mark.slow, id="full"),
        pytest.param({"r": 2, "alpha": 4, "dropout": 0.0, "last_blocks": 1}, id="lora"),
    ],
)
def test_sft_lowers_the_loss_and_sft_and_grpo_move_every_part_through_trls_trainers(
    processor_and_model, params, tmp_path, lora
):
    processor, model = processor_and_model
    adapters = Lora(**lora) if lora else None
    sft = params.sft.model_copy(
        update={"max_steps": 40, "batch_size": 16, "save_steps": 100, "warmup_steps": 2, "lora": adapters}
        | {"learning_rate": 1e-2, "least_moved": 0.95}
    )
    rows = list(examples())
    learnt = fine_tune(
        model,
        processor,
        sft_rows(rows, params.think, instruct=False),
        sft,
        work=tmp_path / "w",
        logs=tmp_path / "l",
        output=tmp_path / "sft",
        seed=0,
    )
    losses = [float(line.split()[-1]) for line in (tmp_path / "l/plots/metrics/loss.tsv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0] * (0.9 if lora else 0.5)  # most of a language model from scratch is not adapted
    grpo = params.grpo.model_copy(
        update={
            "max_steps": 4,
            "batch_size": 32,
            "group_size": 8,
            "eval_steps": 2,
            "max_completion_length": 8,
            "temperature": 1.0,
            "adam_epsilon": 1e-8,
            "lora": adapters,
            "beta": 0.02 if lora else 0.0,
            "learning_rates": params.grpo.learning_rates.model_copy(update={"gains": None if lora else 0.03}),
        }
    )
    tuned = load_trainable(tmp_path / "sft")
    features = {e.sample.scene_id: MadeUpScenes().features(e.sample.scene_id) for e in rows}
    moved = optimise(
        tuned,
        R1Processor.load(tmp_path / "sft", MadeUpScenes()),
        grpo_rows(rows, features, params.think, instruct=False),
        grpo_rows(some(rows, 2), features, params.think, instruct=False),
        FakeText(),
        grpo,
        work=tmp_path / "w2",
        logs=tmp_path / "l2",
        output=tmp_path / "grpo",
        seed=0,
    )
    assert moved.keys() == learnt.keys() and all(part["norm"] > 0 for part in moved.values())
    held_out = (tmp_path / "l2/plots/metrics/eval_reward.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[0] for row in held_out] == ["0", "2", "4"]


def test_what_the_settings_leave_out_is_not_trained_and_does_not_stop_the_stage(params, tmp_path):
    changed = {"num_objects": 8, "num_views": 2, "hidden_size": 32, "num_hidden_layers": 1}
    shape = params.model.model_copy(update=changed | {"modalities": ("image",), "view_strategy": "random"})
    processor, model = tiny_language.processor_and_model(shape)
    sft = params.sft.model_copy(
        update={"max_steps": 2, "batch_size": 4, "save_steps": 100, "warmup_steps": 0, "least_moved": 0.1}
    )
    rows = sft_rows(list(examples(2)), params.think, instruct=False)
    where = {"work": tmp_path / "w", "logs": tmp_path / "sft", "output": tmp_path / "model"}
    assert fine_tune(model, processor, rows, sft, **where, seed=0).keys() == {"language_model", "view_projector"}
