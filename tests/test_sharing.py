"""Rows that begin alike are read once, and what comes out is what comes out row by row."""

from collections import Counter

import pytest
import tiny_language
import torch
from tiny_language import SMALL, examples
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.prompts import Request
from r1pipe.params import Params
from r1pipe.training.language.examples import sft_rows
from r1pipe.training.language.sft import by_room

ROOT = tiny_language.ROOT


@pytest.fixture(scope="module")
def params() -> Params:
    return Params.load(ROOT / "params.yaml")


@pytest.fixture
def processor_and_model(params):
    return tiny_language.processor_and_model(params.model.model_copy(update=SMALL))


@pytest.fixture
def read(processor_and_model):
    """The shape of what the language model reads."""
    shapes = []

    def look(module, given, named):
        shapes.append(tuple(named["inputs_embeds"].shape[:2]))

    handle = processor_and_model[1].model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    yield shapes
    handle.remove()


def questions(processor, params, rooms: int, each: int):
    """A padded batch as TRL collates it: `each` questions about every room, with completions of unlike lengths."""
    asked = [e._replace(completion=f"<think>{'chair ' * (i % 3 + 1)}</think><answer>red</answer>")
             for room in range(rooms) for i, e in enumerate(each * [list(examples())[2 * room]])]  # fmt: skip
    rows = sft_rows(asked, params.think, instruct=False)
    return DataCollatorForVisionLanguageModeling(processor)(list(rows))


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: weights.grad.clone() for name, weights in model.named_parameters()}


@pytest.mark.parametrize("side", ["right", "left"])
def test_shared_and_row_by_row_give_the_same_logits_and_gradients(processor_and_model, params, read, side):
    processor, model = processor_and_model
    batch = questions(processor, params, rooms=2, each=4)
    if side == "left":
        pad = int(batch["attention_mask"].sum(dim=1).max()) + 3 - batch["attention_mask"].sum(dim=1)
        for name, fill in (("input_ids", 0), ("attention_mask", 0), ("labels", -100)):
            held = [row[m.bool()] for row, m in zip(batch[name], batch["attention_mask"], strict=True)]
            given = [torch.cat([row.new_full((int(p),), fill), row]) for row, p in zip(held, pad, strict=True)]
            if name != "attention_mask":
                batch[name] = torch.stack(given)
        columns = torch.arange(batch["input_ids"].shape[1])
        batch["attention_mask"] = (columns >= pad[:, None]).long()
        batch["labels"][columns <= pad[:, None]] = -100  # what padding says next is nobody's
        # A prompt's completions in GRPO: padded alike in front.
        batch = {name: value[::4].repeat_interleave(4, dim=0) for name, value in batch.items()}
        batch["input_ids"][:, -1] = batch["input_ids"][0, torch.arange(8) - 9]
    held = batch["attention_mask"].bool()
    shared, folded = model(**batch).logits[held], gradients(model, batch)
    model.config.text_config._attn_implementation = "eager"  # where no mask of our own is given
    alone, unfolded = model(**batch).logits[held], gradients(model, batch)
    (rows, length), row_by_row = read[0], read[-1]
    assert rows == 2 and rows * length < 0.8 * held.numel() and row_by_row == tuple(held.shape)
    torch.testing.assert_close(shared, alone, atol=2e-5, rtol=1e-4)
    for name, gradient in unfolded.items():
        torch.testing.assert_close(folded[name], gradient, atol=1e-5, rtol=1e-3)


def test_what_rows_begin_with_is_a_tree_of_which_every_branch_is_read_once(processor_and_model, read):
    model = processor_and_model[1]
    trunk, first, second = [5, 6, 7, 8], [9, 10], [11, 12]
    ids = torch.tensor(
        [[*trunk, *branch, leaf] for branch, leaf in ((first, 13), (first, 14), (second, 13), (second, 9))]
    )
    shared = model(ids, torch.ones_like(ids)).logits
    model.config.text_config._attn_implementation = "eager"
    torch.testing.assert_close(shared, model(ids, torch.ones_like(ids)).logits, atol=2e-5, rtol=1e-4)
    assert read == [(1, 4 + 2 * (2 + 2)), (4, 7)]


def test_a_prompt_that_several_completions_begin_with_is_read_once(processor_and_model, params, read):
    """And what is kept of it for the tokens to come is each completion's own."""
    processor, model = processor_and_model
    model.eval()
    asked = Answerer(model, processor, processor.image_processor.store)
    requests = [Request(f"scene{room:04d}", "qa", "red chair at " * (room + 1)) for room in range(2)]
    inputs = {
        name: given.repeat_interleave(4, 0)
        for name, given in asked._inputs(requests, params.think, blind=False).items()
    }

    def sample():
        torch.manual_seed(0)
        options = {
            "do_sample": True,
            "top_k": 0,
            "max_new_tokens": 12,
            "suppress_tokens": [model.config.image_token_id],
        }
        return model.generate(**inputs, **options)

    shared, rows = sample(), read[0][0]
    model.config.text_config._attn_implementation = "eager"
    assert rows == 2 and len(shared.unique(dim=0)) == 8
    assert torch.equal(shared, sample())


def test_rooms_that_are_unlike_are_read_row_by_row(processor_and_model, params, read):
    processor, model = processor_and_model
    batch = questions(processor, params, rooms=4, each=1)
    model(**batch)
    assert read == [tuple(batch["input_ids"].shape)]


def test_a_room_in_which_one_object_is_elsewhere_is_not_the_same(processor_and_model, params):
    processor, model = processor_and_model
    batch = questions(processor, params, rooms=1, each=4)
    batch["pixel_values"][2, 0, 1] += 0.05  # 5 cm
    together = model(**batch).logits
    model.config.text_config._attn_implementation = "eager"
    torch.testing.assert_close(together, model(**batch).logits, atol=2e-5, rtol=1e-4)


def test_every_row_comes_once_a_pass_with_its_room_beside_it(params):
    sft = params.sft.model_copy(update={"questions_a_room": 4, "max_steps": 6, "batch_size": 16})
    images = [[f"room{row % 6}|question {row}"] for row in range(48)]
    order = by_room(images, sft, seed=1)
    assert len(order) == 96 and sorted(order[:48]) == sorted(order[48:]) == list(range(48))
    assert order[:48] != order[48:] and order == by_room(images, sft, seed=1) != by_room(images, sft, seed=2)
    assert Counter(len({row % 6 for row in order[i : i + 4]}) for i in range(0, 96, 4)) == {1: 24}
