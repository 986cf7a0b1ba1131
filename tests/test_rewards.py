"""What each reward gives to good, bad and cheating completions."""

import numpy as np
import pytest

from r1pipe.datasets.sample import Sample
from r1pipe.errors import GateError
from r1pipe.geometry import Box
from r1pipe.params.run import Think
from r1pipe.params.training import RewardWeights
from r1pipe.response import parse
from r1pipe.rewards import (
    FormatReward,
    LengthReward,
    SemanticReward,
    exact_match_reward,
    perception_reward,
    reasoning_reward,
    repetition_reward,
)
from r1pipe.rewards.check import self_check
from r1pipe.rewards.total import build_rewards, reward_columns

HERE, THERE = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [5.0, 0.0, 0.5, 1.0, 1.0, 1.0]
OBJECTS = {"<obj_000>": HERE, "<obj_001>": THERE, "<obj_002>": None}
NO_OPTIONS = {"exact_match": 0, "length": 0, "repetition": 0, "reasoning": 0}
LIMITS = {"length_limit": 20, "least_margin": 0.02, "min_think_words": 0, "semantic_baseline": 0.0}


def turn(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("text", "think", "value"),
    [
        pytest.param("<think>a</think><answer>b</answer>", True, 1.0, id="as asked"),
        pytest.param("  <think>a</think>\n<answer>b</answer>\n", True, 1.0, id="white space around"),
        pytest.param("<answer>b</answer>", False, 1.0, id="answer alone where thinking is off"),
        pytest.param("<answer>b</answer>", True, 0.0, id="no thinking where it is on"),
        pytest.param("<think>a</think><answer>b</answer>", False, 0.0, id="thinking where it is off"),
        pytest.param("", True, 0.0, id="nothing"),
        pytest.param("<think></think><answer></answer>", True, 0.0, id="empty tags"),
        pytest.param("<think> </think><answer> </answer>", True, 0.0, id="blank tags"),
        pytest.param("<think>a</think><answer>b</answer> c", True, 0.0, id="text after the answer"),
        pytest.param("c <think>a</think><answer>b</answer>", True, 0.0, id="text before"),
        pytest.param("<answer>b</answer><think>a</think>", True, 0.0, id="wrong order"),
        pytest.param("<think>a<answer>b</answer></think>", True, 0.0, id="answer inside the thinking"),
        pytest.param("<think>a</think><answer>b</answer><answer>b</answer>", True, 0.0, id="doubled tags"),
        pytest.param("<think>a", True, 0.0, id="cut off"),
        pytest.param("<think>" + "a" * 1_000_000, True, 0.0, id="a megabyte"),
    ],
)
def test_format_reward(text, think, value):
    assert FormatReward(min_think_words=0)([turn(text)], think=[think]) == [value]


@pytest.mark.parametrize(
    ("text", "think", "value"),
    [
        pytest.param("<think>a red chair</think><answer>b</answer>", True, 1.0, id="as many words as asked"),
        pytest.param("<think>a chair</think><answer>b</answer>", True, 0.0, id="one word less"),
        pytest.param("<think>chair<obj_000>red</think><answer>b</answer>", True, 1.0, id="an identifier is a word"),
        pytest.param(
            "<think>red</think><answer>a red chair</answer>", True, 0.0, id="words of the answer do not count"
        ),
        pytest.param("<answer>b</answer>", False, 1.0, id="no floor where the task does not think"),
    ],
)
def test_a_floor_on_thinking_takes_the_format_reward_of_what_skimps_it(text, think, value):
    assert FormatReward(min_think_words=3)([turn(text)], think=[think]) == [value]


@pytest.mark.parametrize(
    ("answer", "targets", "value"),
    [
        pytest.param("<obj_000>", [HERE], 1.0, id="the object"),
        pytest.param("<obj_001>", [HERE], 0.0, id="another object"),
        pytest.param("<obj_000> <obj_001>", [HERE], 0.5, id="a surplus box costs"),
        pytest.param("<obj_000>", [HERE, THERE], 0.5, id="a missing box costs"),
        pytest.param("<obj_001> <obj_000>", [HERE, THERE], 1.0, id="order does not matter"),
        pytest.param("<obj_000><obj_000>", [HERE], 1.0, id="naming twice is naming once"),
        pytest.param("<box>0,0,0.5,1,1,1</box>", [HERE], 1.0, id="a literal box"),
        pytest.param("<box>0,0,0.5,-1,-1,-1</box>", [HERE], 0.0, id="negative size"),
        pytest.param("<box>0,0,0.5,0,0,0</box>", [HERE], 0.0, id="no size"),
        pytest.param("<box>0.5,0.5,1,-0.5,-0.5,0</box>", [HERE], 0.0, id="swapped corners, as corners"),
        pytest.param("<box>0.5,0.5,1,-1,-1,-1</box>", [HERE], 0.0, id="swapped corners, as a size"),
        pytest.param("<box>nan,0,0,1,1,1</box>", [HERE], 0.0, id="not a number"),
        pytest.param("<box>0,0,0.5,inf,inf,inf</box>", [HERE], 0.0, id="infinite"),
        pytest.param("<box>0,0,0.5,1e308,1e308,1e308</box>", [HERE], 0.0, id="a volume that overflows"),
        pytest.param("<box>0,0,0.5,1e3,1e3,1e3</box>", [HERE], 1e-9, id="the whole world"),
        pytest.param("<obj_999>", [HERE], 0.0, id="no such object"),
        pytest.param("<obj_002>", [HERE], 0.0, id="an identifier without a box"),
        pytest.param("none", [], 1.0, id="nothing asked, nothing given"),
        pytest.param("<obj_000>", [], 0.0, id="nothing asked, something given"),
        pytest.param("<box>0,0,0.5,1,1,1</box>" * 10_000, [HERE], 1e-4, id="ten thousand boxes"),
        pytest.param("where is the thing next to <obj_001>?", [HERE], 0.0, id="the copied question"),
        pytest.param("<obj_000>" + "x" * 1_000_000, [HERE], 1.0, id="a megabyte beside the right object"),
        pytest.param(
            "".join(f"<box>{3 * i},0,0,1,1,1</box>" for i in range(80)),
            [[3.0 * i, 0.0, 0.0, 1.0, 1.0, 1.0] for i in range(80)],
            1.0,
            id="as many targets as boxes",
        ),
    ],
)
def test_perception_reward(answer, targets, value):
    text = f"<answer>{answer}</answer>"
    (found,) = perception_reward([turn(text)], target_boxes=[targets], objects=[OBJECTS], think=[False])
    assert found == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "targets", "think", "value"),
    [
        pytest.param("<think>chair <obj_000> red</think><answer>red</answer>", [HERE], True, 1.0, id="the object"),
        pytest.param("<think>chair <obj_001> red</think><answer>red</answer>", [HERE], True, 0.0, id="another object"),
        pytest.param(
            "<think><obj_000> <obj_001></think><answer>red</answer>", [HERE], True, 0.5, id="a surplus object"
        ),
        pytest.param("<think><obj_000></think><answer>2</answer>", [HERE, THERE], True, 0.5, id="a missing object"),
        pytest.param("<think>chair</think><answer><obj_000></answer>", [HERE], True, 0.0, id="in the answer alone"),
        pytest.param("<think><obj_000></think><answer><obj_001></answer>", [HERE], True, 1.0, id="whatever the answer"),
        pytest.param("<think><obj_000></think>", [HERE], True, 0.0, id="broken grammar"),
        pytest.param("<think><obj_000></think><answer>red</answer>", None, True, None, id="no target"),
        pytest.param("<answer><obj_000></answer>", [HERE], False, None, id="a task that does not think"),
    ],
)
def test_reasoning_reward(text, targets, think, value):
    given = {"reasoning_boxes": [targets], "objects": [OBJECTS], "think": [think]}
    assert reasoning_reward([turn(text)], **given) == [value]


@pytest.mark.parametrize(
    ("task", "boxes", "expected"),
    [
        pytest.param("qa", [HERE], (None, [HERE]), id="a question that thinks is about things"),
        pytest.param("qa", [], (None, None), id="a question about no thing"),
        pytest.param("grounding", [HERE], ([HERE], None), id="a task that does not think"),
    ],
)
def test_reasoning_is_measured_by_the_boxes_of_any_sample_whose_task_thinks(task, boxes, expected):
    boxes = tuple(Box(*box) for box in boxes)
    sample = Sample(
        id="a", scene_id="b", task=task, question="c", answers=("red",), boxes=boxes, source="scanqa", split="train"
    )
    think = Think(**dict.fromkeys(Think.model_fields, False) | {"qa": True})
    columns = reward_columns(sample, {}, think)
    assert (columns["target_boxes"], columns["reasoning_boxes"]) == expected


CHEATS = {
    "nothing": "",
    "empty tags": "<think></think><answer></answer>",
    "doubled tags": "<think>a</think><answer>red</answer><think>a</think><answer>red</answer>",
    "doubled answer": "<think>a</think><answer>blue</answer><answer>red</answer>",
    "answer inside the thinking": "<think>a<answer>red <obj_000></answer></think>",
    "text after the answer": "<think>a</think><answer>red <obj_000></answer> red",
    "no tags": "red <obj_000>",
    "a megabyte": "red <obj_000> " * 80_000,
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_what_breaks_the_grammar_is_worth_nothing_to_any_reward(cheat):
    columns = {
        "think": [True], "references": [["red"]], "target_boxes": [[HERE]], "reasoning_boxes": [[HERE]],
        "objects": [OBJECTS],
    }  # fmt: skip
    weights = RewardWeights(**dict.fromkeys(RewardWeights.model_fields, 1))
    rewards = build_rewards(Letters(), weights, **LIMITS)
    assert list(rewards) == list(RewardWeights.model_fields)
    assert [reward([turn(CHEATS[cheat])], **columns) for reward in rewards.values()] == [[0.0]] * 7


def test_a_batch_is_worth_what_its_rows_are():
    rng = np.random.default_rng(0)
    texts = ["".join(f"<obj_{n:03d}>" for n in rng.integers(0, 4, rng.integers(1, 4))) for _ in range(40)]
    columns = {
        "target_boxes": [[HERE], [HERE, THERE], [], None] * 10,
        "objects": [OBJECTS] * 40,
        "think": [i % 5 == 4 for i in range(40)],
    }
    completions = [turn(f"<answer>{text}</answer>") for text in texts]
    together = perception_reward(completions, **columns)
    alone = [perception_reward([c], **{n: [v[i]] for n, v in columns.items()})[0] for i, c in enumerate(completions)]
    assert together == alone
    assert {None, 0.0, 0.5, 1.0} <= set(together)


def test_perception_does_not_apply_without_targets():
    assert perception_reward([turn("<answer>a</answer>")], target_boxes=[None], objects=[{}], think=[False]) == [None]


class Letters:
    """Texts as normalised letter counts; counts how many it has embedded."""

    seen = 0

    def encode_text(self, texts):
        self.seen += len(texts)
        counts = np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], np.float32) + 1e-6
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class FailingEncoder:
    def encode_text(self, texts):
        raise NotImplementedError


def test_semantic_reward_takes_the_best_reference_and_embeds_a_text_once():
    encoder = Letters()
    reward = SemanticReward(encoder, baseline=0.0)
    columns = {"references": [["red", "blue"], ["red"], None], "think": [False] * 3}
    completions = [turn("<answer>blue</answer>"), turn("<answer>zzz</answer>"), turn("<answer>red</answer>")]
    for _ in range(2):
        best, worst, none = reward(completions, **columns)
    assert (best, none) == (pytest.approx(1.0, abs=1e-4), None)
    assert worst < 0.1
    assert encoder.seen == 3


def test_a_copied_question_is_worth_less_than_the_answer():
    completions = [turn(f"<answer>{text}</answer>") for text in ("red", "what color is the chair?")]
    right, copied = SemanticReward(Letters(), baseline=0.0)(completions, references=[["red"]] * 2, think=[False] * 2)
    assert right == pytest.approx(1.0, abs=1e-4)
    assert copied < 0.8


def test_embeddings_outlast_a_run_to_the_last_bit(tmp_path):
    given = {"completions": [turn("<answer>blue</answer>")], "references": [["red"]], "think": [False]}
    first, second = SemanticReward(Letters(), baseline=0.0), SemanticReward(FailingEncoder(), baseline=0.0)
    value = first(**given)
    first.save(tmp_path / "memory.safetensors")
    second.load(tmp_path / "memory.safetensors")
    assert second(**given) == value
    SemanticReward(Letters(), baseline=0.0).save(tmp_path / "nothing.safetensors")
    second.load(tmp_path / "nothing.safetensors")
    with pytest.raises(NotImplementedError):
        second(**given)


@pytest.mark.parametrize(
    ("reward", "text", "value"),
    [
        pytest.param(exact_match_reward, "Red.", 1.0, id="exact: case and full stop do not count"),
        pytest.param(exact_match_reward, "2 chairs", 1.0, id="exact: digits are words, the second reference counts"),
        pytest.param(exact_match_reward, "red or blue", 0.0, id="exact: every answer at once"),
        pytest.param(LengthReward(10), "one two three", 1.0, id="length: short"),
        pytest.param(LengthReward(10), "so " * 15, 0.5, id="length: half too long"),
        pytest.param(LengthReward(10), "so " * 300_000, 0.0, id="length: a megabyte"),
        pytest.param(repetition_reward, "red", 1.0, id="repetition: too short to repeat"),
        pytest.param(repetition_reward, "a red chair near a blue table", 1.0, id="repetition: none"),
        pytest.param(repetition_reward, "it is red it is red", 0.75, id="repetition: one of four"),
        pytest.param(repetition_reward, "red " * 102, 0.01, id="repetition: nothing else"),
    ],
)
def test_optional_rewards(reward, text, value):
    given = {"references": [["red", "two chairs"]], "think": [False]}
    assert reward([turn(f"<answer>{text}</answer>")], **given) == [pytest.approx(value)]


def test_optional_rewards_are_off_without_a_weight_and_exact_match_needs_references():
    weights = RewardWeights(format=1, perception=0, semantic=0, **NO_OPTIONS)
    assert list(build_rewards(Letters(), weights, **LIMITS)) == ["format", "perception", "semantic"]
    assert exact_match_reward([turn("<answer>a</answer>")], references=[None], think=[False]) == [None]


def check(rewards, least_margin=0.02, min_think_words=0):
    self_check(rewards, least_margin=least_margin, min_think_words=min_think_words)


def test_the_self_check_passes_real_rewards_and_stops_a_constant_one():
    build_rewards(Letters(), RewardWeights(**dict.fromkeys(RewardWeights.model_fields, 1)), **LIMITS)
    with pytest.raises(GateError, match=r"format reward of 'empty' at least 0\.02 below 0\.7500, .* found 0\.7500"):
        check({"format": lambda completions, **_: [0.75 for _ in completions]})


def test_a_cheat_that_is_worth_hardly_less_is_refused():
    nearly = {"format": lambda completions, think, **_: [FormatReward(0)(completions, think=think)[0] or 0.99]}
    check(nearly, least_margin=0.009)
    with pytest.raises(GateError, match=r"at least 0\.02 below 1\.0000, .* found 0\.9900"):
        check(nearly)


class Alike(Letters):
    """Tells all words apart but those of one pair, whose cosine is given."""

    def __init__(self, pair, cosine):
        self.pair, self.cosine = pair, cosine

    def encode_text(self, texts):
        rows = np.pad(super().encode_text(texts), ((0, 0), (0, 2)))
        for row, text in zip(rows, texts, strict=True):
            if text in self.pair:
                angle = np.arccos(self.cosine) * self.pair.index(text)
                row[:] = [0] * 26 + [np.cos(angle), np.sin(angle)]
        return rows


@pytest.mark.parametrize("pair", [("red", "blue"), ("left", "right"), ("one", "two")])
def test_a_text_encoder_that_cannot_tell_answers_apart_is_refused_by_its_name(pair):
    weights = RewardWeights(format=1, perception=1, semantic=1, **NO_OPTIONS)
    build_rewards(Alike(pair, 0.97), weights, **LIMITS)
    with pytest.raises(GateError) as refused:
        build_rewards(Alike(pair, 0.9991), weights, **LIMITS)
    assert str(refused.value) == (
        f"Expected the text encoder Alike to tell '{pair[0]}' from '{pair[1]}' by at least 0.02 in the semantic reward, "
        "found 1.0000 and 0.9991."
    )
    build_rewards(Alike(pair, 0.9991), weights, **LIMITS | {"least_margin": 0.0005})


@pytest.mark.parametrize("min_think_words", [1, 2, 300])
def test_the_self_check_holds_a_floor_on_thinking_to_its_word(min_think_words):
    check({"format": FormatReward(min_think_words)}, min_think_words=min_think_words)
    if min_think_words > 1:
        with pytest.raises(GateError, match="format reward of 'too little thinking'"):
            check({"format": FormatReward(0)}, min_think_words=min_think_words)


@pytest.mark.parametrize(
    ("cheat", "reward"),
    [
        ("wrong object", lambda said: "<obj_" in said.thinking),
        ("every object", lambda said: "<obj_000>" in said.thinking),
        (
            "no object named",
            lambda said: "<obj_000>" in said.thinking + said.answer and "<obj_001>" not in said.thinking,
        ),
    ],
)
def test_the_self_check_notices_reasoning_about_other_things(cheat, reward):
    check({"reasoning": reasoning_reward})
    said = lambda completions: parse(completions[0][0]["content"], think=True)  # noqa: E731
    with pytest.raises(GateError, match=f"the reasoning reward of '{cheat}'"):
        check({"reasoning": lambda completions, **_: [float(bool(said(completions) and reward(said(completions))))]})


@pytest.mark.parametrize(
    ("baseline", "cosine", "value"),
    [
        pytest.param(0.0, 0.7, 0.7, id="off: the cosine"),
        pytest.param(0.5, 0.75, 0.5, id="half way from the baseline to 1"),
        pytest.param(0.5, 1.0, 1.0, id="the reference"),
        pytest.param(0.5, 0.5, 0.0, id="as good as blind"),
        pytest.param(0.5, 0.2, 0.0, id="worse than blind"),
    ],
)
def test_the_semantic_reward_begins_at_its_baseline(baseline, cosine, value):
    reward = SemanticReward(Alike(("red", "blue"), cosine), baseline=baseline)
    (found,) = reward([turn("<answer>blue</answer>")], references=[["red"]], think=[False])
    assert found == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "reward", "cheat"),
    [
        ("perception", lambda completions, **_: [1.0 for c in completions if "<obj_000>" in c[0]["content"]] or [0.0], "doubled tags"),
        ("semantic", lambda completions, **_: [float(len(c[0]["content"])) for c in completions], "doubled tags"),
        ("length", lambda completions, **_: [1.0 / (1 + len(c[0]["content"])) for c in completions], "empty"),
        ("repetition", lambda completions, **_: [float("<think>c" in c[0]["content"]) for c in completions], "doubled tags"),
    ],
)  # fmt: skip
def test_the_self_check_names_the_cheat_that_a_reward_falls_for(name, reward, cheat):
    with pytest.raises(GateError, match=f"the {name} reward of '{cheat}'"):
        check({name: reward})
