"""What every arm is asked, and how its answers, its rewards and the run's table are measured."""

import hashlib
import io
import json
from typing import get_args

import numpy as np
import pytest
import torch
from rich.console import Console

from r1pipe.datasets.sample import Pose, Sample
from r1pipe.errors import DataError
from r1pipe.evaluation.arms import ARMS, evaluate
from r1pipe.evaluation.examples import SHOWN, Material, Pool
from r1pipe.evaluation.provenance import provenance
from r1pipe.evaluation.sampled import RewardRules
from r1pipe.evaluation.scorecard import run_score
from r1pipe.evaluation.table import gaps_sentence, looks_at_the_scene, results_table
from r1pipe.evaluation.tasks import questions
from r1pipe.files import read_jsonl
from r1pipe.geometry import Box
from r1pipe.models.features import SceneFeatures
from r1pipe.params.evaluation import Evaluate
from r1pipe.params.run import Think
from r1pipe.params.section import EvaluatedTask
from r1pipe.params.training import RewardWeights
from r1pipe.rewards.total import build_rewards
from r1pipe.views.choice import ViewChoice

CUBE = [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
FAR = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]


def features(scene_id="room"):
    def zeros(*shape):
        return np.zeros(shape, dtype=np.float32)

    boxes = np.array([CUBE, FAR], dtype=np.float32)
    return SceneFeatures(
        scene_id, zeros(2, 4), boxes, zeros(2), ("chair", "lamp"), zeros(1, 4), zeros(1, 3), zeros(1, 4), zeros(1, 4),
        zeros(1, 4, 4), zeros(1, 4), zeros(1, 4), zeros(1),
    )  # fmt: skip


def sample(number, task, source, **more):
    return Sample(id=f"{source}-{number}", scene_id="room", task=task, source=source, split="test", **more)


SAMPLES = [
    sample(0, "qa", "scanqa", question="what colour is the chair?", answers=("red",), tags=("what",)),
    sample(0, "grounding", "scanrefer", question="the chair", object_ids=(4,), boxes=(Box(*CUBE),), tags=("unique",)),
    sample(1, "grounding", "nr3d", question="the lamp", object_ids=(5,), boxes=(Box(*FAR),), tags=("hard",)),
    sample(0, "grounding", "multi3drefer", question="all", object_ids=(4, 5), boxes=(Box(*CUBE), Box(*FAR))),
    sample(0, "captioning", "scan2cap", question="describe <obj_004>.", answers=("a red chair",), object_ids=(4,), boxes=(Box(*CUBE),)),
    sample(1, "captioning", "scan2cap", question="describe <obj_004>.", answers=("the chair",), object_ids=(4,), boxes=(Box(*CUBE),)),
]  # fmt: skip
SETTINGS = Evaluate(
    split="test",
    tasks=("qa", "grounding", "captioning"),
    batch_size=2,
    max_new_tokens=4,
    num_samples=None,
    bootstrap=20,
    reward_samples=None,
    reward_completions=2,
)
THINK = Think(
    qa=True, situated=True, grounding=False, captioning=False, dialogue=False, planning=False, description=False
)


BOOK = {
    "qa": "<think>chair <obj_000> red</think><answer>red</answer>",
    "grounding": "<answer><obj_000></answer>",
    "captioning": "<answer>a red chair</answer>",
}


WEIGHTS = RewardWeights(format=0.3, perception=0.4, semantic=0.3, exact_match=0, length=0, repetition=0, reasoning=0)


class Letters:
    """Embeds a text by the letters it has."""

    def encode_text(self, texts):
        counts = np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Parrot:
    """Answers from a fixed book, and says nothing readable when blind."""

    device = torch.device("cpu")

    def complete(self, requests, *, blind, kept, **_):
        return kept(0, lambda: ["" if blind else BOOK[request.task] for request in requests])

    def views(self, request):
        return [ViewChoice(0, True, 0.1, 0.2, 0.3, 1 / 3)]


@pytest.fixture
def asked():
    return {task: questions(task, SAMPLES, {"room": features()}, None) for task in SETTINGS.tasks}


def test_only_single_targets_are_asked_for_and_only_audible_detections_described(asked):
    assert [row["id"] for row in asked["grounding"].references] == ["scanrefer-0", "nr3d-1"]
    assert asked["captioning"].references[0]["captions"] == ["a red chair", "the chair"]
    assert [request.question for request in asked["captioning"].requests] == ["describe <obj_000>."]


def test_a_limit_keeps_the_same_samples_whatever_their_order():
    some = [
        {row["id"] for row in questions("grounding", rows, {"room": features()}, 1).references}
        for rows in (SAMPLES, SAMPLES[::-1])
    ]
    assert some[0] == some[1]
    assert len(some[0]) == 1


def test_a_task_without_samples_is_an_error():
    with pytest.raises(DataError, match="task qa"):
        questions("qa", SAMPLES[1:], {"room": features()}, None)


def measured(asked, folder, settings=SETTINGS):
    off = {"min_think_words": 0, "semantic_baseline": 0.0}
    rewards = build_rewards(Letters(), WEIGHTS, length_limit=20, least_margin=0.02, **off)
    return evaluate(
        lambda name: Parrot(),
        asked,
        {"room": features()},
        rules=RewardRules(rewards, WEIGHTS, temperature=1.0),
        settings=settings,
        think=THINK,
        seed=0,
        work=folder.parent,
        folder=folder,
    )


def test_every_arm_is_measured_and_its_predictions_score_the_same_again(tmp_path, asked):
    folder = tmp_path / "predictions"
    metrics = measured(asked, folder)
    assert list(metrics) == ["sft", "grpo", "control_prompts", "control_sequences", "blind"]
    assert metrics["sft"]["qa"]["em"] == {"value": 100, "low": 100, "high": 100, "n": 1}
    assert (metrics["grpo"]["grounding"]["acc_25"]["value"], metrics["blind"]["grounding"]["acc_25"]["value"]) == (
        50,
        0,
    )
    assert (metrics["sft"]["qa"]["format"]["value"], metrics["blind"]["qa"]["format"]["value"]) == (100, 0)
    # A right answer, a right box and, of the lamp, the chair's box: 0.3 + 0.3, 0.3 + 0.4, 0.3.
    assert metrics["sft"]["reward"]["total"]["value"] == pytest.approx(100 * (0.6 + 0.7 + 0.3) / 3, abs=1e-3)
    assert (metrics["sft"]["reward"]["perception"]["n"], metrics["sft"]["reward"]["semantic"]["n"]) == (2, 1)
    assert metrics["blind"]["reward"]["total"]["value"] == 0
    assert next(read_jsonl(folder / "sft-reward.jsonl")) == {
        "id": "scanqa-0", "format": 1.0, "perception": None, "semantic": 1.0, "total": 0.6
    }  # fmt: skip
    for task in SETTINGS.tasks:
        again = run_score(task, folder / f"grpo-{task}.jsonl", folder / f"references-{task}.jsonl", None)
        for name, found in metrics["grpo"][task].items():
            assert name == "format" or again[name] == pytest.approx(found["value"], abs=1e-4)
    looks = list(read_jsonl(folder / "views-grpo.jsonl"))
    assert len(looks) == sum(len(questions.requests) for questions in asked.values())
    assert looks[0]["views"] == [
        {"view": 0, "chosen": True, "text3d": 0.1, "image3d": 0.2, "clip": 0.3, "utility": 0.3333}
    ]
    assert next(read_jsonl(folder / "sft-qa.jsonl"))["completion"] == BOOK["qa"]
    assert json.loads(json.dumps(metrics)) == metrics


def test_rewards_may_be_sampled_of_fewer_questions_than_are_answered(tmp_path, asked):
    metrics = measured(asked, tmp_path / "p", SETTINGS.model_copy(update={"reward_samples": 1}))["sft"]
    assert (metrics["grounding"]["acc_25"]["n"], metrics["reward"]["perception"]["n"]) == (2, 1)


MORE = [
    *SAMPLES,
    sample(0, "situated", "sqa3d", question="What is left of me?", answers=("chair",), tags=("what",), pose=Pose(position=(0, 0, 0), rotation=(0, 0, 0, 1))),
    sample(0, "situated", "3dllm", question="where can I sit?", answers=("on the chair",), tags=("embodied",)),
    sample(1, "dialogue", "3dllm", question="hello", answers=("the chair is red.",)),
    sample(2, "planning", "3dllm", question="tidy up", answers=("1. move the chair.",)),
    sample(3, "grounding", "multi3drefer", question="none", answers=("none",), tags=("zt_wo_d",)),
]  # fmt: skip
BOOK |= {"situated": "<think>x</think><answer>The chair.</answer>", "dialogue": "<answer>the chair is blue.</answer>", "planning": "<answer>sleep</answer>"}  # fmt: skip


def test_all_seven_benchmarks_are_asked_and_measured(tmp_path):
    settings = SETTINGS.model_copy(update={"tasks": get_args(EvaluatedTask)})
    asked = {task: questions(task, MORE, {"room": features()}, None) for task in settings.tasks}
    assert [row["id"] for row in asked["situated"].references] == ["sqa3d-0"]
    assert [len(row["boxes"]) for row in asked["multi-grounding"].references] == [2, 0]
    metrics = measured(asked, tmp_path / "p", settings)["sft"]
    assert (metrics["situated"]["em"]["value"], metrics["situated"]["em_what"]["n"]) == (100, 1)
    # One of two targets is named, and a box where there is none.
    assert metrics["multi-grounding"]["f1_25"]["value"] == pytest.approx(100 * (2 / 3 + 0) / 2, abs=1e-3)
    assert metrics["multi-grounding"]["zt_wo_d_f1_25"]["value"] == 0
    assert metrics["dialogue"]["bleu_1"]["value"] == pytest.approx(75, abs=1e-3)
    assert metrics["planning"]["rouge_l"]["value"] == 0
    material = {
        task: Material(asked[task].references, {"grpo": list(read_jsonl(tmp_path / f"p/grpo-{task}.jsonl"))})
        for task in SHOWN
    }
    shown = {e.task: e.said[0].verdict for e in Pool(material, {}, MORE, THINK).ranked(1).best}
    assert (shown["situated"], shown["dialogue"], shown["planning"]) == ("right", "ROUGE-L 75", "ROUGE-L 0")


def headline(em, acc):
    def number(value):
        return {"value": value, "low": value - 1, "high": value + 1, "n": 9}

    return {"qa": {"em": number(em)}, "grounding": {"acc_25": number(acc), "acc_50": number(acc)}}


def test_the_table_says_what_was_measured_and_whether_the_scene_was_seen():
    metrics = {
        "sft": headline(60, 70),
        "grpo": headline(65, 75),
        "control_prompts": headline(61, 70),
        "control_sequences": headline(62, 71),
        "blind": headline(30, 20),
    }
    table = results_table(metrics)
    assert [column.header for column in table.columns] == ["arm", "exact match\nn=9", "Acc@0.25\nn=9", "Acc@0.5\nn=9"]
    assert next(iter(table.columns[1].cells)) == "60.0\n[59.0,61.0]"
    assert list(table.columns[0].cells) == ["sft", "grpo", "control_\nprompts", "control_\nsequences", "blind"]
    assert "sft +30.0 exact match, +50.0 Acc@0.25; grpo +35.0" in gaps_sentence(metrics)
    assert looks_at_the_scene(metrics)
    metrics["sft"] = headline(45, 70)
    assert not looks_at_the_scene(metrics)
    assert "not proven" in gaps_sentence(metrics)


def test_the_table_of_all_arms_and_numbers_fits_into_80_columns():
    number = {"value": 636.9, "low": 608.8, "high": 667.2, "n": 1494}
    numbers = {"captioning": {"cider_50": number}, "reward": {"total": headline(50, 50)["qa"]["em"]}}
    console = Console(width=80, file=io.StringIO())
    console.print(results_table({arm.name: headline(60, 70) | numbers for arm in ARMS}))
    printed = console.file.getvalue()
    assert "…" not in printed
    assert all(text in printed for text in ("[608.8,667.2]", "mean reward", "sequences", "prompts"))


def test_the_request_of_a_sample_keeps_pose_and_history():
    history = ("hi", "hello")
    rows = [sample(7, "qa", "scanqa", question="and now?", answers=("red",), history=history)]
    assert questions("qa", rows, {"room": features()}, None).requests[0].history == history


def test_numbers_rest_on_weights_samples_rules_and_a_processor(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "test.jsonl").write_bytes(b"samples")
    found = provenance(("qa",), {"sft": tmp_path}, tmp_path / "test.jsonl", SETTINGS, 0, temperature=1.3)
    assert found["models"]["sft"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert found["data"] == {"samples": "test.jsonl", "sha256": hashlib.sha256(b"samples").hexdigest()}
    assert found["protocols"]["qa"]["name"] == "scanqa"
    assert found["processor"]
