"""GRPO moves the policy along the advantage-weighted score, says what it does, and stops where an answer ends."""

import pytest
import torch
from datasets import Dataset
from tiny_language import params, publish_language, run_grpo, run_sft
from tokenizers import Tokenizer, models
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainerCallback,
)
from trl import GRPOTrainer

from r1pipe.models.r1 import R1ForConditionalGeneration
from r1pipe.models.r1.modeling import R1Model
from r1pipe.params import Lora
from r1pipe.training.language.grpo import grpo_settings

ANSWERS = ("left", "right")


def two_answers() -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """A policy that says `left` or `right` with even chances, whatever it is asked; only the head learns."""
    vocabulary = {word: i for i, word in enumerate((*ANSWERS, "<pad>", "<end>"))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="left")), pad_token="<pad>", eos_token="<end>"
    )
    sizes = {"hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = Qwen2Config(vocab_size=2, num_key_value_heads=1, tie_word_embeddings=False, **sizes)
    model = Qwen2ForCausalLM(config).requires_grad_(requires_grad=False)
    for weights in model.parameters():
        weights.zero_()  # neither attention nor the feed-forward layer adds anything
    model.model.embed_tokens.weight.fill_(1.0)
    model.model.norm.weight.fill_(1.0)
    model.lm_head.weight.requires_grad_()
    return model, tokenizer


class Watch(TrainerCallback):
    """Before each update: the gradient that TRL arrived at, and the one that theory gives for what was sampled."""

    def __init__(self, model: Qwen2ForCausalLM, group_size: int) -> None:
        self.model, self.group_size = model, group_size
        self.sampled: list[str] = []
        self.found: list[torch.Tensor] = []
        self.expected: list[torch.Tensor] = []

    def reward(self, completions, **_):
        self.sampled = list(completions)
        return [float(text == "right") for text in completions]

    def on_pre_optimizer_step(self, args, state, control, **_):
        reward_N = torch.tensor([float(text == "right") for text in self.sampled])
        baseline_N = reward_N.view(-1, self.group_size).mean(dim=1).repeat_interleave(self.group_size)
        advantage_N = (reward_N - baseline_N) / (reward_N.std() + 1e-4)
        hidden_D = torch.ones(2) / (1 + self.model.config.rms_norm_eps) ** 0.5
        chance_A = (self.model.lm_head.weight.detach() @ hidden_D).softmax(dim=0)
        said_NA = torch.eye(2)[[ANSWERS.index(text) for text in self.sampled]]
        score_NA = said_NA - chance_A  # the gradient of log chance by the two logits
        ascent_A = (advantage_N[:, None] * score_NA).mean(dim=0)
        self.expected.append(-torch.outer(ascent_A, hidden_D))
        self.found.append(self.model.lm_head.weight.grad.clone())


def test_the_update_is_the_advantage_weighted_score_and_the_rewarded_answer_wins(tmp_path):
    model, tokenizer = two_answers()
    chance = lambda: model.lm_head.weight.sum(dim=1).softmax(dim=0)[1].item()  # noqa: E731
    grpo = params().grpo.model_copy(
        update={"max_steps": 40, "batch_size": 64, "group_size": 8, "max_completion_length": 1, "learning_rate": 0.1}
    )
    watch = Watch(model, grpo.group_size)
    settings = grpo_settings(grpo, [1.0], tmp_path, seed=0)
    prompts = Dataset.from_list([{"prompt": "left"}] * 64)
    trainer = GRPOTrainer(
        model, watch.reward, settings, prompts, prompts.select([0]), processing_class=tokenizer, callbacks=[watch]
    )
    assert chance() == 0.5
    trainer.train()
    assert len(watch.found) == 40 and watch.found[0].abs().max() > 0.1
    torch.testing.assert_close(torch.stack(watch.found), torch.stack(watch.expected), atol=1e-5, rtol=0)
    assert chance() > 0.95


@pytest.fixture(scope="module", params=["tiny", "paper"])
def tuned(request, tmp_path_factory):
    """After SFT: the small model of the profile `tiny`, and one of the classes of the profile `paper`."""
    folder = tmp_path_factory.mktemp(request.param)
    language = None
    if request.param == "paper":
        language = str(folder / "published")
        publish_language(folder / "published", tied=False)
    run_sft(folder, language, max_steps=100, save_steps=1000)
    return folder / "sft"


class Passes:
    """How many tokens each forward pass of a generation has read, one list a generation."""

    def __init__(self, monkeypatch) -> None:
        self.generations: list[list[int]] = []
        generate, forward = R1ForConditionalGeneration.generate, R1Model.forward
        inside = []

        def counted_generate(model, *given, **named):
            self.generations.append([])
            inside.append(True)
            tokens = generate(model, *given, **named)
            inside.pop()
            return tokens

        def counted_forward(model, input_ids, *given, **named):
            if inside:
                self.generations[-1].append(input_ids.shape[1])
            return forward(model, input_ids, *given, **named)

        monkeypatch.setattr(R1ForConditionalGeneration, "generate", counted_generate)
        monkeypatch.setattr(R1Model, "forward", counted_forward)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="as in tiny"),
        pytest.param(
            {
                "lora": Lora(r=2, alpha=4, dropout=0.0, last_blocks=1),
                "beta": 0.02,
                "bf16": True,
                "gradient_checkpointing": True,
                "device_batch_size": 8,
            },
            id="as in paper",
        ),
    ],
)
def test_rollouts_read_each_token_once_and_stop_where_the_answers_end(tuned, settings, tmp_path, monkeypatch):
    passes = Passes(monkeypatch)
    longest = 60
    run_grpo(tmp_path, str(tuned), max_steps=2, eval_steps=2, max_completion_length=longest, **settings)
    assert passes.generations
    for prompt, *later in passes.generations:
        assert prompt > 30 and set(later) == {1}
        assert len(later) + 1 < longest
