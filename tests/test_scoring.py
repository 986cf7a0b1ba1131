"""Prediction files against reference files: names, coverage, protocols, matching, the rows of `evaluate`."""

import json
from typing import get_args

import numpy as np
import pytest
import torch

from r1pipe.datasets.sample import Pose, Sample
from r1pipe.errors import DataError
from r1pipe.evaluation.arms import evaluate
from r1pipe.evaluation.examples import SHOWN, Material, Pool
from r1pipe.evaluation.sampled import RewardRules
from r1pipe.evaluation.scorecard import Scoring, run_compare, run_score
from r1pipe.evaluation.scorecard import score as score_files
from r1pipe.evaluation.submissions import Submission
from r1pipe.evaluation.table import gaps_sentence, looks_at_the_scene, results_table
from r1pipe.evaluation.tasks import questions
from r1pipe.files import read_json, read_jsonl, write_jsonl
from r1pipe.geometry import Box
from r1pipe.models.features import SceneFeatures
from r1pipe.params.evaluation import Evaluate
from r1pipe.params.run import Think
from r1pipe.params.section import EvaluatedTask
from r1pipe.params.training import RewardWeights
from r1pipe.rewards.total import build_rewards
from r1pipe.views.choice import ViewChoice

CUBE = [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
HALF = [0.0, 0.0, 0.0, 2.0, 2.0, 1.001]
EXACT_HALF = [0.0, 0.0, 0.0, 2.0, 2.0, 1.0]
FAR = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]
QA_REFERENCES = [
    {"id": "a", "answers": ["a red chair"], "question_type": "what"},
    {"id": "b", "answers": ["two", "2"], "question_type": "how many"},
]


def score(task, predictions, references, protocol=None, options=()):
    how = Scoring(protocol, dict(options), meteor=False)
    return score_files(task, Submission("rows", list(predictions)), Submission("rows", list(references)), how)


def answers(**texts):
    return [{"id": name, "answer": text} for name, text in texts.items()]


def test_question_answering_is_scored_under_the_official_names():
    found = score("qa", answers(a="red chair", b="2"), QA_REFERENCES)
    assert (found["em"], found["em_refined"], found["em_what"], found["em_how_many"]) == (50, 100, 0, 100)
    assert (found["meteor"], found["meteor_reason"]) == (None, "METEOR was not asked for")
    assert {"cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"} <= found.keys()
    assert (found["num_samples"], found["protocol"]) == (2, "scanqa")


def test_predictions_in_another_order_score_the_same():
    rows = answers(a="red chair", b="2")
    assert score("qa", rows, QA_REFERENCES) == score("qa", rows[::-1], QA_REFERENCES)


@pytest.mark.parametrize(
    ("task", "protocol", "em"),
    [
        pytest.param("qa", None, 0.0, id="raw strings"),
        pytest.param("qa", "leo", 100.0, id="leo cleans both sides"),
        pytest.param("qa", "chat-scene", 100.0, id="so does chat-scene"),
        pytest.param("situated", None, 100.0, id="sqa3d cleans both sides"),
    ],
)
def test_the_protocol_decides_what_is_equal(task, protocol, em):
    assert score(task, answers(a="The chair."), [{"id": "a", "answers": ["the chair"]}], protocol)["em"] == em


def test_dialogue_has_no_exact_match():
    found = score("dialogue", answers(a="hi", b="no"), [{"id": n, "answers": [n]} for n in "ab"])
    assert "em" not in found
    assert "rouge_l" in found


def test_an_unknown_protocol_names_those_there_are():
    with pytest.raises(DataError, match=r"scanqa, leo.*found 'mine'"):
        score("qa", answers(a="x"), [{"id": "a", "answers": ["x"]}], "mine")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param("a", r"found 1 missing \(b\), 0 surplus and 0 repeated", id="missing"),
        pytest.param("abcd", r"0 missing, 2 surplus \(c in row 3, d in row 4\)", id="surplus"),
        pytest.param("aab", r"1 repeated \(a in rows 1, 2\)", id="repeated"),
        pytest.param("aac", r"1 missing \(b\), 1 surplus \(c in row 3\) and 1 repeated", id="all three are counted"),
        pytest.param("", "predictions for 2 reference ids, found none", id="empty"),
    ],
)
def test_predictions_must_cover_the_references_exactly(names, message):
    with pytest.raises(DataError, match=message):
        score("qa", [{"id": name, "answer": ""} for name in names], QA_REFERENCES)


def test_a_malformed_row_is_named():
    with pytest.raises(DataError, match=r"answers, found another in row 2: answer: field required.* 1 of 2 rows"):
        score("qa", [{"id": "a", "answer": ""}, {"id": "b"}], QA_REFERENCES)


def test_grounding_counts_thresholds_and_groups():
    references = [
        {"id": "a", "boxes": [CUBE], "unique": True},
        {"id": "b", "boxes": [CUBE], "unique": False},
        {"id": "c", "boxes": [CUBE], "tags": ["hard", "view-dependent"]},
        {"id": "d", "boxes": [CUBE], "unique": False},
    ]
    boxes = {"a": [CUBE], "b": [HALF], "c": [[0, 0, 0, 2, 2, 0.501]], "d": []}
    found = score("grounding", [{"id": name, "boxes": some} for name, some in boxes.items()], references)
    assert (found["acc_25"], found["acc_50"]) == (75, 50)
    assert (found["unique_acc_50"], found["multiple_acc_50"], found["hard_acc_25"]) == (100, 50, 100)
    assert found["view_dependent_acc_50"] == 0


def test_grounding_wants_one_target():
    with pytest.raises(DataError, match="found 2 in a"):
        score("grounding", [{"id": "a", "boxes": []}], [{"id": "a", "boxes": [CUBE, FAR]}])


def test_multi_grounding_is_the_mean_over_queries():
    references = [
        {"id": "none", "boxes": [], "unique": True},
        {"id": "one", "boxes": [CUBE], "unique": False},
        {"id": "two", "boxes": [CUBE, FAR]},
    ]
    boxes = {"none": [], "one": [CUBE, FAR], "two": [CUBE, FAR]}
    found = score("multi-grounding", [{"id": name, "boxes": some} for name, some in boxes.items()], references)
    assert found["f1_25"] == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)
    assert (found["zt_wo_d_f1_25"], found["mt_f1_50"]) == (100, 100)
    assert found["st_w_d_f1_25"] == pytest.approx(200 / 3)
    typed = score("multi-grounding", [{"id": "a", "boxes": []}], [{"id": "a", "boxes": [], "eval_type": "zt_w_d"}])
    assert typed["zt_w_d_f1_50"] == 100


CAPTION_REFERENCES = [
    {"scene_id": "s", "object_id": 0, "box": CUBE, "captions": ["a red chair at the wall"]},
    {"scene_id": "s", "object_id": 1, "box": FAR, "captions": ["one lamp hangs over here"]},
    {"scene_id": "t", "object_id": 0, "box": FAR, "captions": ["this is some other thing"]},
]


def captions(*rows):
    keys = ("scene_id", "object_id", "box", "caption")
    return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]


def test_a_caption_counts_only_where_its_box_reaches_k():
    rows = captions(("s", None, HALF, "a red chair at the wall"), ("s", None, FAR, "one lamp hangs over here"))
    found = score("captioning", rows, CAPTION_REFERENCES)
    assert found["cider_25"] == found["cider_50"] > 500  # two of three are perfect
    assert found["num_samples"] == 3
    assert found["meteor_25"] is None


def test_nobody_speaking_is_scored_as_silence():
    found = score("captioning", [], CAPTION_REFERENCES)
    assert found["cider_50"] == 0
    assert found["rouge_l_50"] > 0  # `sos eos` shares two words with every reference


@pytest.mark.parametrize(
    ("task", "protocol", "options", "name", "value"),
    [
        pytest.param("grounding", None, {}, "acc_50", 0, id="scanrefer's epsilon makes an exact 0.5 a miss"),
        pytest.param("grounding", None, {"epsilon": "0"}, "acc_50", 100, id="without it, >= counts"),
        pytest.param("grounding", "nr3d", {}, "acc_90", 0, id="a ground-truth proposal is the target or not"),
        pytest.param("multi-grounding", None, {}, "f1_50", 0, id="multi3drefer's"),
        pytest.param("multi-grounding", None, {"epsilon": "0"}, "st_f1_50", 100, id="multi3drefer without"),
        pytest.param("grounding", None, {"thresholds": "0.3,0.7"}, "acc_30", 100, id="thresholds"),
    ],
)
def test_an_overlap_of_exactly_k_follows_the_protocol(task, protocol, options, name, value):
    found = score(task, [{"id": "a", "boxes": [EXACT_HALF]}], [{"id": "a", "boxes": [CUBE]}], protocol, options)
    assert found[name] == value
    assert all(f"{key}={text}" in found["protocol"] for key, text in options.items())


def test_an_option_that_nobody_knows_is_named_with_those_there_are():
    with pytest.raises(DataError, match=r"prediction\.ptb.*found reference\.upper"):
        score("qa", answers(a="x"), [{"id": "a", "answers": ["x"]}], None, {"reference.upper": "true"})


def test_an_option_changes_what_is_compared():
    rows, references = answers(a="a chair"), [{"id": "a", "answers": ["the chair"]}]
    assert score("qa", rows, references)["em"] == 0
    assert score("qa", rows, references, None, {"exact": "clean"})["em"] == 100


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0, 0, 0, 2, 2, 2, 0.0], id="a yaw of nothing"),
        pytest.param([0, 0, 0, 2, 2, 2, 0.0, 0.0, 0.0], id="three angles"),
        pytest.param([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], id="corners"),
    ],
)
def test_a_box_may_be_written_in_four_ways(box):
    assert score("grounding", [{"id": "a", "boxes": [box]}], [{"id": "a", "boxes": [CUBE]}])["acc_50"] == 100


def test_an_object_id_outranks_the_overlap():
    text = "a red chair at the wall"
    near = captions(("s", None, CUBE, text))
    named = captions(("s", 0, CUBE, text))
    wrong = captions(("s", 1, CUBE, text))
    scores = [score("captioning", rows, CAPTION_REFERENCES)["bleu_1_50"] for rows in (near, named, wrong)]
    assert scores[0] == scores[1] > scores[2]


def test_leo_scores_an_object_that_was_described_in_the_wrong_place():
    rows = captions(("s", 0, FAR, "a red chair at the wall"), ("s", None, FAR, "a lamp"))
    assert score("captioning", rows, CAPTION_REFERENCES, "leo")["num_samples"] == 2


def test_ids_may_be_numbers():
    assert score("qa", [{"id": 7, "answer": "x"}], [{"id": "7", "answers": ["x"]}])["em"] == 100


def test_leo_leaves_silent_objects_out():
    rows = captions(("s", None, CUBE, "a red chair at the wall"))
    assert score("captioning", rows, CAPTION_REFERENCES, "leo")["num_samples"] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(("x", None, CUBE, "a"), r"found 1 surplus \(x, object None, in row 1\)", id="unknown scene"),
        pytest.param(("s", 7, CUBE, "a"), "found 1 surplus .*object 7", id="unknown object"),
    ],
)
def test_captions_of_nothing_known_are_refused(row, message):
    with pytest.raises(DataError, match=message):
        score("captioning", captions(row), CAPTION_REFERENCES)


def test_score_and_compare_read_and_write_files(tmp_path):
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("first", "second", "references")}
    write_jsonl(paths["first"], answers(a="no", b="2"))
    write_jsonl(paths["second"], answers(a="a red chair", b="2"))
    write_jsonl(paths["references"], QA_REFERENCES)
    out = tmp_path / "out.json"
    assert run_score("qa", paths["first"], paths["references"], out) == read_json(out)
    gap = run_compare("qa", *paths.values(), resamples=100, seed=0)["em"]
    assert (gap["first"], gap["second"], gap["difference"], gap["low"], gap["high"]) == (50, 100, 50, 0, 100)


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


WEIGHTS = RewardWeights(format=0.3, perception=0.4, semantic=0.3, exact_match=0, length=0, repetition=0)


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
    return evaluate(
        lambda name: Parrot(),
        asked,
        {"room": features()},
        rules=RewardRules(build_rewards(Letters(), WEIGHTS, length_limit=20), WEIGHTS, temperature=1.0),
        settings=settings,
        think=THINK,
        seed=0,
        work=folder.parent,
        folder=folder,
    )


def test_every_arm_is_measured_and_its_predictions_score_the_same_again(tmp_path, asked):
    folder = tmp_path / "predictions"
    metrics = measured(asked, folder)
    assert list(metrics) == ["sft", "grpo", "control", "blind"]
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
        "control": headline(61, 70),
        "blind": headline(30, 20),
    }
    table = results_table(metrics)
    assert [column.header for column in table.columns] == ["arm", "exact match\nn=9", "Acc@0.25\nn=9", "Acc@0.5\nn=9"]
    assert next(iter(table.columns[1].cells)) == "60.0\n[59.0,61.0]"
    assert "sft +30.0 exact match, +50.0 Acc@0.25; grpo +35.0" in gaps_sentence(metrics)
    assert looks_at_the_scene(metrics)
    metrics["sft"] = headline(45, 70)
    assert not looks_at_the_scene(metrics)
    assert "not proven" in gaps_sentence(metrics)


def test_the_request_of_a_sample_keeps_pose_and_history():
    history = ("hi", "hello")
    rows = [sample(7, "qa", "scanqa", question="and now?", answers=("red",), history=history)]
    assert questions("qa", rows, {"room": features()}, None).requests[0].history == history
