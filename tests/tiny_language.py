"""SFT and GRPO small enough for tests: a real model, processor and trainer; made-up scenes.

As a program it runs trainings as a stage's process runs them: the `Run` that its argument is as JSON; or, each in a
process of its own, a list of them on standard input, with their exit statuses on standard output. Those are forks of one
process that has imported everything.
"""

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from r1pipe.datasets import Sample
from r1pipe.evaluation.arms import evaluate
from r1pipe.evaluation.journal import Journal
from r1pipe.evaluation.sampled import RewardRules
from r1pipe.evaluation.tasks import questions
from r1pipe.files import write_json
from r1pipe.geometry import Box
from r1pipe.models.encoders.clip import Clip
from r1pipe.models.features import SceneFeatures
from r1pipe.models.r1 import R1ForConditionalGeneration, R1Processor, SceneReader
from r1pipe.models.r1.answering import Answerer
from r1pipe.models.r1.language import load_tokenizer, train_tokenizer
from r1pipe.models.r1.prompts import SYSTEM, Request
from r1pipe.models.r1.weights import load, load_trainable, plain
from r1pipe.params import Params
from r1pipe.params.model import Model
from r1pipe.params.training import LearningRates, Lora
from r1pipe.rewards.total import build_rewards
from r1pipe.stages import control
from r1pipe.stages.runner import run
from r1pipe.training.language import checkpoints
from r1pipe.training.language.examples import Example, grpo_rows, sft_rows, some
from r1pipe.training.language.grpo import optimise
from r1pipe.training.language.setup import build_model
from r1pipe.training.language.sft import fine_tune

ROOT = Path(__file__).parents[1]
WORDS = ["qa think: what color is the chair? user assistant red blue chair at"]
SMALL = {"language": None, "num_objects": 8, "num_views": 2, "hidden_size": 32, "num_hidden_layers": 2}
COLOURS = ("red", "blue", "green", "brown")
LEAST_MARGIN = 0.01
"""What `small_clip` tells red from blue by is 0.018."""


ONE_RATE = LearningRates(projectors=None, selector=None, tokens=None, gains=None)


class MadeUpScenes:
    """A store whose scenes are drawn from their names: every object has its own box and features."""

    def features(self, scene_id: str) -> SceneFeatures:
        rng = np.random.default_rng(int(scene_id[-4:]))
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        boxes = np.concatenate([normal(5, 3) * 2, np.ones((5, 3), np.float32)], axis=1)
        cameras = np.tile(np.eye(4, dtype=np.float32), (6, 1, 1))
        return SceneFeatures(
            scene_id, normal(5, 16), boxes, np.ones(5, np.float32), ("chair",) * 5, normal(4, 16), normal(4, 3),
            normal(6, 12), normal(6, 8), cameras, normal(6, 10), normal(6, 10), np.ones(6, np.float32) / 6,
        )  # fmt: skip

    def view_scores(self, scene_id: str, question: str) -> np.ndarray:
        rng = np.random.default_rng(int(scene_id[-4:]) + len(question))
        return rng.uniform(size=(6, 3)).astype(np.float32)


class FakeText:
    """Texts as one-hot rows: equal texts are alike, different ones are not."""

    def encode_text(self, texts):
        return np.stack([np.eye(64, dtype=np.float32)[sum(map(ord, t)) % 64] for t in texts])


def small_clip() -> Clip:
    """Untrained, but CLIP: what it says of a text depends in the last bits on the texts beside it."""
    torch.manual_seed(0)
    tower = {"layers": 1, "width": 32}
    vision = {**tower, "image_size": 32, "patch_size": 8, "head_width": 16}
    text = {**tower, "context_length": 16, "heads": 2, "vocab_size": 49408}
    return Clip.new({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text})


def publish_language(folder: Path, *, tied: bool) -> None:
    """A checkpoint of the paper profile's classes, Qwen2.5-VL, small and untrained, laid out as on the hub.

    Its configuration is flat and names bfloat16 and mrope; its vocabulary is padded beyond the tokenizer's with rows that
    are all alike, as those that nothing has trained are.
    """
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1.0e6, "mrope_section": [1, 1, 2]}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": 512, "num_key_value_heads": 2, "initializer_range": 0.15, "rope_parameters": rope, **sizes}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision | {"fullatt_block_indexes": [0]}, tie_word_embeddings=tied
    )
    tokenizer = train_tokenizer([*WORDS, SYSTEM], 480, 0)
    tokenizer.save_pretrained(folder)
    model = Qwen2_5_VLForConditionalGeneration(config)
    for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        table.data[len(tokenizer) :] = table.data[-1]
    model.to(torch.bfloat16).save_pretrained(folder)
    found = json.loads((folder / "config.json").read_text())
    flat = found | found.pop("text_config") | {"model_type": "qwen2_5_vl", "torch_dtype": "bfloat16"}
    flat |= {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "rope_theta": 1.0e6}
    for name in ("dtype", "rope_parameters", "text_config"):
        flat.pop(name, None)
    write_json(folder / "config.json", flat)


def processor_and_model(shape: Model, lora: Lora | None = None) -> tuple[R1Processor, R1ForConditionalGeneration]:
    """A fresh model of this shape, or of the language model that it names; `lora` is trained on it later."""
    store = MadeUpScenes()
    tokenizer = load_tokenizer(shape) if shape.language else train_tokenizer(WORDS, 400, shape.num_objects)
    model = build_model(shape, tokenizer, store.features("scene0000"), lora=lora, view_weight_pull=0.1, seed=0)
    return R1Processor(SceneReader(model.config, store), tokenizer), model


def examples(count: int = 16):
    """A question and an object to find in each scene."""
    for i in range(count):
        scene, colour = f"scene{i:04d}", COLOURS[i % len(COLOURS)]
        qa = Sample(
            id=f"q{i}", scene_id=scene, task="qa", question="what color is the chair?", answers=(colour,),
            source="scanqa", split="train",
        )  # fmt: skip
        yield Example(qa, Request.of(qa), f"<think>chair <obj_001> {colour}</think><answer>{colour}</answer>")
        box = Box(*map(float, MadeUpScenes().features(scene).object_boxes[1]))
        find = Sample(
            id=f"g{i}", scene_id=scene, task="grounding", question="the chair", boxes=(box,), object_ids=(1,),
            source="scanrefer", split="train",
        )  # fmt: skip
        yield Example(find, Request.of(find), "<think>chair <obj_001></think><answer><obj_001></answer>")


def params() -> Params:
    return Params.load(ROOT / "params.yaml")


def run_sft(folder: Path, language: str | None = None, **settings) -> None:
    """SFT from scratch; `folder/sft` is the model, `folder/work` what an interrupted run goes on from."""
    chosen = params()
    instruct = language is not None
    short = {"max_steps": 16, "batch_size": 8, "save_steps": 5, "warmup_steps": 2, "learning_rate": 1e-2}
    processor, model = processor_and_model(
        chosen.model.model_copy(update=SMALL | {"language": language}), settings.get("lora")
    )
    fine_tune(
        model, processor, sft_rows(list(examples()), chosen.think, instruct=instruct),
        chosen.sft.model_copy(update=short | settings),
        work=folder / "work", logs=folder / "logs", output=folder / "sft", seed=0,
    )  # fmt: skip


def run_grpo(folder: Path, start: str, **settings) -> None:
    """GRPO from the model of `run_sft` at `start`; `folder/grpo` is the model."""
    chosen = params()
    short = {
        "max_steps": 14, "batch_size": 16, "group_size": 4, "save_steps": 4, "eval_steps": 5, "eval_prompts": 4,
        "max_completion_length": 12, "learning_rate": 1e-2, "least_margin": LEAST_MARGIN,
    }  # fmt: skip
    rows, store = list(examples()), MadeUpScenes()
    features = {e.sample.scene_id: store.features(e.sample.scene_id) for e in rows}
    model = load_trainable(Path(start))
    instruct = plain(model).config.instruct
    optimise(
        model, R1Processor.load(Path(start), store),
        grpo_rows(rows, features, chosen.think, instruct=instruct),
        grpo_rows(some(rows, 4), features, chosen.think, instruct=instruct),
        small_clip(), chosen.grpo.model_copy(update=short | settings),
        work=folder / "work", logs=folder / "logs", output=folder / "grpo", seed=0,
    )  # fmt: skip


def run_control(folder: Path, start: str, **settings) -> None:
    """The stage itself on made-up scenes, from the model of `run_sft` at `start`; `folder/control` holds both models."""
    chosen = params()
    short = {"max_steps": 8, "batch_size": 16, "group_size": 4, "save_steps": 3}
    control.FeatureStore = SimpleNamespace(load=lambda _: MadeUpScenes())
    control.read_corpus = lambda *_: SimpleNamespace(examples=list(examples()))
    places = {"sft": Path(start), "control": folder / "control", "logs": folder / "logs", "cot": folder / "cot"}
    control.main(
        chosen.model_copy(
            update={
                "paths": chosen.paths.model_copy(update=places),
                "grpo": chosen.grpo.model_copy(update=short | settings),
            }
        )
    )


def run_evaluate(folder: Path, start: str) -> None:
    """Every arm, each the model of `run_sft` at `start`; `folder/evaluate` holds what they said, `folder/logs` the metrics."""
    chosen = params()
    short = {
        "tasks": ("qa", "grounding"), "batch_size": 4, "max_new_tokens": 12, "bootstrap": 10, "reward_completions": 2,
    }  # fmt: skip
    samples, store = [example.sample for example in examples(8)], MadeUpScenes()
    features = {sample.scene_id: store.features(sample.scene_id) for sample in samples}
    measured = chosen.evaluate.model_copy(update=short)
    weights = chosen.grpo.reward_weights
    rewards = build_rewards(
        small_clip(), weights, length_limit=20, least_margin=LEAST_MARGIN, min_think_words=0, semantic_baseline=0.0
    )
    work = folder / "work"
    work.mkdir(exist_ok=True)
    metrics = evaluate(
        lambda _: Answerer(load(Path(start)), R1Processor.load(Path(start), store), store),
        {task: questions(task, samples, features, None) for task in measured.tasks},
        features,
        rules=RewardRules(rewards, weights, temperature=1.0),
        settings=measured, think=chosen.think, seed=0, work=work, folder=folder / "evaluate",
    )  # fmt: skip
    write_json(folder / "logs/metrics.json", metrics)


class Run(NamedTuple):
    """One process."""

    stage: str
    folder: str
    settings: dict[str, Any]
    end: str | None = None
    """The signal that it sends itself."""

    at: int | str = 0
    """Behind which step or batch; `sequences 4`: step 4 of that control; `saving`: the middle of the first checkpoint."""

    processes: int = 1


def end_at(chosen: Run) -> None:
    """Send the signal at the moment that the run names."""
    kill = lambda: os.kill(os.getpid(), signal.Signals[chosen.end])  # noqa: E731
    step_end, save = checkpoints.StopOnTerm.on_step_end, checkpoints.Remainder.on_save

    def on_step_end(self, args, state, control, **given):
        if chosen.at in (state.global_step, f"{Path(args.output_dir).name} {state.global_step}"):
            kill()
        step_end(self, args, state, control, **given)

    def on_save(self, *given, **named):
        if chosen.at == "saving":
            kill()
        save(self, *given, **named)

    checkpoints.StopOnTerm.on_step_end, checkpoints.Remainder.on_save = on_step_end, on_save
    ask, batches = Journal.__call__, itertools.count(1)

    def asked(self, number, generate):
        completions = ask(self, number, generate)
        if next(batches) == chosen.at:
            kill()
        return completions

    Journal.__call__ = asked


def stage(chosen: Run) -> None:
    """Run as a stage does: parameters of the folder, signals, one-sentence errors."""
    folder = Path(chosen.folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    values = (ROOT / "params.yaml").read_text().replace("threads: 2", "threads: 1").replace("conf/", f"{ROOT}/conf/")
    Path("params.yaml").write_text(values.replace("processes: 1", f"processes: {chosen.processes}"))
    with Path("stderr.txt").open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = [__file__, json.dumps(chosen)]  # what more processes are started with
    if chosen.end:
        end_at(chosen)
    work = {"sft": run_sft, "grpo": run_grpo, "control": run_control, "evaluate": run_evaluate}[chosen.stage]
    settings = dict(chosen.settings)
    if "lora" in settings:
        settings |= {"lora": Lora(**settings["lora"]), "learning_rates": ONE_RATE}
    run(lambda _: work(Path(), **settings), in_processes=True)


def status(chosen: Run) -> int:
    """What the stage would exit with."""
    try:
        stage(chosen)
    except SystemExit as ended:
        return int(ended.code)
    return 0


def main() -> None:
    if sys.argv[1:]:
        sys.exit(status(Run(*json.loads(sys.argv[1]))))
    statuses = []
    for chosen in (Run(*row) for row in json.load(sys.stdin)):
        if (child := os.fork()) == 0:
            os._exit(status(chosen))
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    sys.stdout.write(json.dumps(statuses))


if __name__ == "__main__":
    main()
