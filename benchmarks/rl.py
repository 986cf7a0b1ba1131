"""What reinforcement costs: rewards of 64 completions, a GRPO step by its parts, and SFT of the paper's architecture.

`python -m benchmarks.rl` measures the rewards, and a GRPO step of the profile `tiny` where `models/` and `data/` of a run
are; on a GPU also SFT with LoRA on the `paper` architecture with random weights. Budget: rewards 10 ms.
"""

import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen2_5_VLTextConfig
from trl import GRPOTrainer

from r1pipe.models.encoders.clip import Clip
from r1pipe.models.r1 import R1Config, R1ForConditionalGeneration, R1Processor
from r1pipe.models.r1.packs import pack_size
from r1pipe.models.r1.store import FeatureStore
from r1pipe.models.r1.weights import load_trainable, plain
from r1pipe.params import Params
from r1pipe.params.training import RewardWeights
from r1pipe.rewards.total import build_rewards
from r1pipe.training.language.corpus import read_corpus
from r1pipe.training.language.examples import grpo_rows, some
from r1pipe.training.language.grpo import optimise
from r1pipe.training.language.setup import adapt
from tools.compose import composed

NUM_COMPLETIONS, BUDGET_MS, STEPS = 64, 10, 6
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16, from NVIDIA's data sheets."""


class Letters:
    """A text encoder that costs nothing: what is measured is the rewards beside it."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(N, 26)`, unit length."""
        counts = np.array([[t.count(chr(97 + i)) for i in range(26)] for t in texts], np.float32) + 1e-6
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True))


def rewards_ms() -> dict[str, float]:
    """Median milliseconds of each reward for a batch of 64 completions of 80 words, texts known."""
    rng = random.Random(0)
    words = [
        "the",
        "chair",
        "table",
        "lamp",
        "left",
        "right",
        "of",
        "near",
        "red",
        "blue",
        "is",
        "it",
        "first",
        "then",
        "so",
    ]
    names = [f"<obj_{i:03d}>" for i in range(24)]
    objects = {name: [rng.uniform(-3, 3) for _ in range(3)] + [1.0, 1.0, 1.0] for name in names}
    texts = [
        f"<think>{' '.join(rng.choices(words, k=80))}</think><answer>{' '.join(rng.sample(names, 3))} red</answer>"
        for _ in range(NUM_COMPLETIONS)
    ]
    columns: dict[str, Any] = {
        "think": [True] * NUM_COMPLETIONS,
        "references": [["red", "a red chair"]] * NUM_COMPLETIONS,
        "objects": [objects] * NUM_COMPLETIONS,
        "target_boxes": [[objects[name] for name in rng.sample(names, 3)] for _ in range(NUM_COMPLETIONS)],
    }
    columns["reasoning_boxes"] = columns["target_boxes"]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    weights = RewardWeights(format=1, perception=1, semantic=1, exact_match=1, length=1, repetition=1, reasoning=1)
    rewards = build_rewards(
        Letters(), weights, length_limit=100, least_margin=0.02, min_think_words=0, semantic_baseline=0.0
    )
    return {name: _median_ms(partial(reward, completions, **columns)) for name, reward in rewards.items()}


def _median_ms(call: Callable[[], object]) -> float:
    call()
    seconds = []
    for _ in range(51):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e3


def grpo_step(params: Params) -> dict[str, float]:
    """Median seconds of a GRPO step and of its parts, on the model and the data of a finished run."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(owner: type, method: str, part: str) -> None:
        original = getattr(owner, method)

        def call(self: object, *given: object, **named: object) -> object:
            start = time.perf_counter()
            result = original(self, *given, **named)
            if torch.is_grad_enabled():  # not while held-out prompts are measured
                seconds[part].append(time.perf_counter() - start)
            return result

        setattr(owner, method, call)

    timed(GRPOTrainer, "training_step", "step, without the optimizer")
    timed(GRPOTrainer, "_generate_single_turn", "generation")
    timed(GRPOTrainer, "_calculate_rewards", "rewards")
    timed(torch.optim.AdamW, "step", "optimizer")
    paths = params.paths
    store = FeatureStore.load(paths.features)
    corpus = read_corpus(paths, store, params.grpo.tasks)
    model = load_trainable(paths.sft)
    instruct = plain(model).config.instruct
    rows = grpo_rows(corpus.examples, corpus.features, params.think, instruct=instruct)
    held_out = grpo_rows(some(corpus.examples, 8), corpus.features, params.think, instruct=instruct)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        optimise(
            model,
            R1Processor.load(paths.sft, store),
            rows,
            held_out,
            Clip.load(paths.backbones / "clip"),
            params.grpo.model_copy(update={"max_steps": STEPS, "eval_steps": 1000, "save_steps": 1000}),
            work=work / "work",
            logs=work / "logs",
            output=work / "model",
            seed=0,
        )
    # The first step warms up.
    parts = {name: statistics.median(times[-STEPS + 1 :]) for name, times in seconds.items()}
    parts["forward and backward"] = parts["step, without the optimizer"] - parts["generation"] - parts["rewards"]
    return parts


def paper_sft(params: Params) -> None:
    """Tokens a second and model FLOPs utilisation of LoRA steps on the paper's architecture, random weights."""
    shape, text_length, batch = params.model, 512, params.sft.device_batch_size or 1
    text = Qwen2_5_VLTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        rope_parameters={"rope_type": "default", "rope_theta": 1.0e6, "mrope_section": [16, 24, 24]},
    )
    widths: dict[str, Any] = {"object_width": 64, "point_width": 512, "view_width": 1024, "depth_width": 1024}
    counts: dict[str, Any] = {
        "num_objects": shape.num_objects,
        "num_points": params.encode.num_points,
        "num_views": shape.num_views,
        "identifiers": shape.identifiers,
    }
    config = R1Config(text, **counts, **widths, num_candidates=21, image_token_id=1, tie_word_embeddings=False)
    with torch.device("cuda"):
        model = R1ForConditionalGeneration(config)
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    num_language = sum(p.numel() for p in model.parameters())
    tuned = adapt(model, params.sft.lora, seed=0)
    tuned.enable_input_require_grads()
    model.gradient_checkpointing_enable()  # type: ignore[no-untyped-call]
    tokens = torch.randint(2, shape.vocabulary, (batch, config.num_scene_tokens + text_length), device="cuda")
    tokens[:, : config.num_scene_tokens] = config.image_token_id
    packs = torch.randn(batch, *pack_size(config), device="cuda", dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-5)
    seconds = []
    for _ in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        tuned(input_ids=tokens, pixel_values=packs, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    rate = tokens.numel() / statistics.median(seconds[2:])
    name = torch.cuda.get_device_name()
    peak = next((flops for card, flops in PEAK_FLOPS.items() if card in name), None)
    print(
        f"SFT with LoRA, {num_language / 1e9:.1f} B parameters, {tuple(tokens.shape)} tokens, {name}: {rate:,.0f} tokens/s"
    )
    # Forward 2 and backward by activations 2 FLOPs a parameter and token; frozen weights have no gradient. Recomputation
    # is no model FLOP (PaLM, appendix B).
    print(
        f"MFU {4 * num_language * rate / peak:.1%}" if peak else f"MFU: expected a card among {', '.join(PEAK_FLOPS)}"
    )


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(2)
    found = rewards_ms()
    three = sum(found[name] for name in ("format", "perception", "semantic"))
    print(f"{'reward of 64 completions':<26}{'ms':>7}")
    for name, ms in found.items():
        print(f"{name:<26}{ms:>7.2f}")
    print(f"{'the three':<26}{three:>7.2f}   budget {BUDGET_MS} ms: {'within' if three <= BUDGET_MS else 'OVER'}")
    params = Params.load()
    if params.paths.sft.is_dir():
        print(f"\nGRPO step of {params.grpo.batch_size} completions, s")
        for name, value in grpo_step(params).items():
            print(f"{name:<28}{value:>7.3f}")
    else:
        print(f"\nGRPO step: expected the model of a run at {params.paths.sft}, found none; `make run` makes it.")
    if torch.cuda.is_available():
        paper_sft(Params.model_validate(composed(["scale=paper", "data=scannet"])))
    else:
        print("SFT of the paper's architecture: expected a CUDA device, found none.")


if __name__ == "__main__":
    main()
