"""GRPO moves the policy along the advantage-weighted score, says what it does, and stops where an answer ends."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from datasets import Dataset
from tiny_language import ONE_RATE, ROOT, params, publish_language, run_grpo, run_sft
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback, TrainerState
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from trl import GRPOTrainer

from r1pipe.models.r1 import R1ForConditionalGeneration
from r1pipe.models.r1.modeling import R1Model
from r1pipe.params.training import Lora
from r1pipe.response import parse
from r1pipe.training.language.completions import Completions
from r1pipe.training.language.courses import DeadRewardAlarm
from r1pipe.training.language.grpo import grpo_settings
from r1pipe.training.language.setup import by_part

LORA = Lora(r=2, alpha=4, dropout=0.0, last_blocks=1)
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

    def __init__(self, model: Qwen2ForCausalLM, group_size: int, temperature: float) -> None:
        self.model, self.group_size, self.temperature = model, group_size, temperature
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
        chance_A = (self.model.lm_head.weight.detach() @ hidden_D / self.temperature).softmax(dim=0)
        said_NA = torch.eye(2)[[ANSWERS.index(text) for text in self.sampled]]
        score_NA = (said_NA - chance_A) / self.temperature  # the gradient of log chance by the two logits
        ascent_A = (advantage_N[:, None] * score_NA).mean(dim=0)
        self.expected.append(-torch.outer(ascent_A, hidden_D))
        self.found.append(self.model.lm_head.weight.grad.clone())


def test_the_update_is_the_advantage_weighted_score_and_the_rewarded_answer_wins(tmp_path):
    model, tokenizer = two_answers()
    chance = lambda: model.lm_head.weight.sum(dim=1).softmax(dim=0)[1].item()  # noqa: E731
    grpo = params().grpo.model_copy(
        update={"max_steps": 40, "batch_size": 64, "group_size": 8, "max_completion_length": 1, "learning_rate": 0.1}
    )
    watch = Watch(model, grpo.group_size, grpo.temperature)
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


def test_gains_have_a_learning_rate_of_their_own_and_every_weight_has_one(tmp_path):
    model, tokenizer = two_answers()
    model.requires_grad_(True)
    grpo = params().grpo
    prompts = Dataset.from_list([{"prompt": "left"}] * 8)
    trainer = GRPOTrainer(
        model, lambda completions, **_: [0.0] * len(completions), grpo_settings(grpo, [1.0], tmp_path, seed=0), prompts,
        prompts.select([0]), processing_class=tokenizer,
    )  # fmt: skip
    groups = by_part(trainer, grpo, adam_beta2=grpo.adam_beta2, adam_epsilon=grpo.adam_epsilon).param_groups
    (gains,) = (group["params"] for group in groups if group["lr"] == grpo.learning_rates.gains)
    assert {id(w) for w in gains} == {id(m.weight) for m in model.modules() if isinstance(m, Qwen2RMSNorm)}
    assert {group["lr"] for group in groups} == {grpo.learning_rate, grpo.learning_rates.gains}
    assert sorted(id(w) for group in groups for w in group["params"]) == sorted(map(id, model.parameters()))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """So small a model only waits for a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tune(folder: Path, language: Path | None = None) -> str:
    """A model that answers in the grammar: where GRPO starts."""
    run_sft(folder, language and str(language), max_steps=80, save_steps=1000)
    return str(folder / "sft")


@pytest.fixture(scope="module")
def rewarded(tmp_path_factory):
    """The folder of a short GRPO with a reference: its logs, and its start in `start/sft`."""
    folder = tmp_path_factory.mktemp("rewarded")
    run_grpo(folder, tune(folder / "start"), max_steps=5, beta=0.02, lora=LORA, learning_rates=ONE_RATE)
    return folder


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


def test_rollouts_in_tiny_read_each_token_once_and_stop_where_the_answers_end(rewarded, tmp_path, monkeypatch):
    check_rollouts(tmp_path, str(rewarded / "start/sft"), Passes(monkeypatch))


@pytest.mark.slow
def test_rollouts_in_paper_do_so_in_its_classes_and_beside_gradient_checkpointing(tmp_path, monkeypatch):
    publish_language(tmp_path / "published", tied=False)
    start = tune(tmp_path / "start", tmp_path / "published")
    adapted = {"lora": LORA, "beta": 0.02, "learning_rates": ONE_RATE}
    paper = {**adapted, "bf16": True, "gradient_checkpointing": True, "device_batch_size": 8}
    check_rollouts(tmp_path, start, Passes(monkeypatch), **paper)


def check_rollouts(folder, start, passes, **settings):
    longest = 60
    run_grpo(folder, start, max_steps=1, eval_steps=1, max_completion_length=longest, **settings)
    assert passes.generations
    for prompt, *later in passes.generations:
        assert prompt > 30 and set(later) == {1}
        assert len(later) + 1 < longest


def test_what_the_model_said_is_kept_with_every_reward(rewarded):
    rows = [json.loads(line) for line in (rewarded / "logs/completions.jsonl").read_text().splitlines()]
    assert len(rows) == 16 and {row["step"] for row in rows} == {5}
    for group in (rows[i : i + 4] for i in range(0, 16, 4)):
        assert len({(row["scene"], row["prompt"]) for row in group}) == 1
        assert sum(row["advantage"] for row in group) == pytest.approx(0, abs=1e-4)
        for row in group:
            task = row["prompt"].split()[0]
            assert set(row["rewards"]) == {"format", "perception", "semantic"}
            assert (row["rewards"]["perception"] is None) == (task == "qa")
            assert row["rewards"]["format"] == float(parse(row["completion"], think=True) is not None)


def test_groups_that_agree_are_counted_group_by_group_whatever_scales_the_rewards(tmp_path):
    prompt = [
        {"role": "user", "content": [{"type": "image", "image": "room|which?"}, {"type": "text", "text": "which?"}]}
    ]
    logs = {
        "prompt": [prompt] * 8,
        "completion": [[{"role": "assistant", "content": "red"}]] * 8,
        "advantages": [0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0],
        "rewards": {"format_reward": [1.0] * 8},
    }
    table = Completions(SimpleNamespace(_logs=logs), 4, parts=tmp_path, table=tmp_path / "table.jsonl")
    state = TrainerState(is_world_process_zero=True, global_step=5, log_history=[{"frac_reward_zero_std": 0.0}])
    table.on_log(None, state, None, {"loss": 0.1})
    assert state.log_history[-1]["frac_reward_zero_std"] == 0.5
    table.on_log(None, state, None, {"eval_loss": 0.1})
    assert [path.name for path in tmp_path.iterdir()] == ["00000005.jsonl"]


def test_every_number_that_tells_a_dying_run_is_plotted(rewarded):
    plotted = {
        Path(file).relative_to("${paths.logs}/grpo/plots/metrics")
        for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
        for given in plot.values()
        for file in given["y"]
        if "/grpo/" in file
    }
    metrics = rewarded / "logs/plots/metrics"
    written = {path.relative_to(metrics) for path in metrics.rglob("*.tsv")}
    assert plotted - written == set()
    assert Path("kl.tsv") in written  # no plot of its own: without a reference there is none
    needed = [
        "frac_reward_zero_std",
        "reward_std",
        "entropy",
        "clip_ratio/region_mean",
        "completions/mean_length",
    ]
    assert {Path(f"{name}.tsv") for name in needed} <= plotted
    for name in ("format", "perception", "semantic"):
        assert {Path(f"rewards/{name}_reward/{part}.tsv") for part in ("mean", "std")} <= plotted


def test_a_reward_without_spread_raises_the_alarm_once_and_a_resumed_run_counts_on(caplog):
    log = lambda alarm, std: alarm.on_log(  # noqa: E731
        None, TrainerState(is_world_process_zero=True), None, {"rewards/format_reward/std": std, "reward_std": 0.0}
    )
    alarm = DeadRewardAlarm(3)
    for std in (0.0, 0.0, None, 0.1, 0.0, 0.0):
        log(alarm, std)
    assert caplog.messages == []
    log(alarm, None)  # applied to no completion of the step: neither way
    log(alarm, 0.0)
    log(alarm, 0.0)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("rewards/format_reward/std has been 0 for 3 logged steps")
    resumed = DeadRewardAlarm(3)
    history = [{"step": 5 * i, "rewards/format_reward/std": 0.0} for i in (1, 2)]
    resumed.on_train_begin(None, TrainerState(log_history=history), None)
    log(resumed, 0.0)
    assert len(caplog.messages) == 2
