"""What each reward gives to good, bad and cheating completions."""

import numpy as np
import pytest

from r1pipe.errors import GateError
from r1pipe.rewards import SemanticReward, format_reward, perception_reward
from r1pipe.rewards.check import self_check

HERE, THERE = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0], [5.0, 0.0, 0.5, 1.0, 1.0, 1.0]
OBJECTS = {"<obj_000>": HERE, "<obj_001>": THERE, "<obj_002>": None}


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
    assert format_reward([turn(text)], think=[think]) == [value]


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
        pytest.param("<box>nan,0,0,1,1,1</box>", [HERE], 0.0, id="not a number"),
        pytest.param("<obj_999>", [HERE], 0.0, id="no such object"),
        pytest.param("<obj_002>", [HERE], 0.0, id="an identifier without a box"),
        pytest.param("none", [], 1.0, id="nothing asked, nothing given"),
        pytest.param("<obj_000>", [], 0.0, id="nothing asked, something given"),
        pytest.param("<box>0,0,0.5,1,1,1</box>" * 10_000, [HERE], 1e-4, id="ten thousand boxes"),
    ],
)
def test_perception_reward(answer, targets, value):
    text = f"<answer>{answer}</answer>"
    (found,) = perception_reward([turn(text)], target_boxes=[targets], objects=[OBJECTS], think=[False])
    assert found == pytest.approx(value)


def test_perception_does_not_apply_without_targets():
    assert perception_reward([turn("<answer>a</answer>")], target_boxes=[None], objects=[{}], think=[False]) == [None]


class Letters:
    """Texts as normalised letter counts; counts how many it has embedded."""

    seen = 0

    def encode_text(self, texts):
        self.seen += len(texts)
        counts = np.array([[t.count(c) for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts], np.float32) + 1e-6
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_semantic_reward_takes_the_best_reference_and_embeds_a_text_once():
    encoder = Letters()
    reward = SemanticReward(encoder)
    columns = {"references": [["red", "blue"], ["red"], None], "think": [False] * 3}
    completions = [turn("<answer>blue</answer>"), turn("<answer>zzz</answer>"), turn("<answer>red</answer>")]
    for _ in range(2):
        best, worst, none = reward(completions, **columns)
    assert (best, none) == (pytest.approx(1.0, abs=1e-4), None)
    assert worst < 0.1
    assert encoder.seen == 3


def test_the_self_check_passes_real_rewards_and_stops_a_constant_one():
    self_check({"format": format_reward, "perception": perception_reward, "semantic": SemanticReward(Letters())})
    with pytest.raises(GateError, match=r"format reward of 'empty' below 0\.750"):
        self_check({"format": lambda completions, **_: [0.75 for _ in completions]})
