"""The view selector keeps the paper's promises: its weights add up, learn, and find the view that holds the answer."""

from typing import get_args

import pytest
import torch

from r1pipe.models.r1.configuration import R1Config, ViewStrategy
from r1pipe.models.r1.selector import TEXT_WEIGHT, ViewSelector

V = 6


def selector(strategy="learnt", *, num_views=2, pull=0.0, **options):
    config = R1Config(num_candidates=V, num_views=num_views, view_strategy=strategy, view_weight_pull=pull, **options)
    return ViewSelector(config)


def drawn(batch=32, seed=0):
    """Scores and cameras of made-up rooms."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, V, 3, generator=generator)
    places = torch.rand(batch, V, 3, generator=generator) * 4
    forward = torch.nn.functional.normalize(torch.randn(batch, V, 3, generator=generator), dim=-1)
    return scores, torch.cat([places, forward], dim=-1)


@pytest.mark.parametrize("strategy", get_args(ViewStrategy))
def test_every_strategy_keeps_as_many_different_views_as_it_should(strategy):
    choice = selector(strategy)(*drawn())
    kept = V if strategy == "all" else 2
    assert choice.shape == (32, kept, V)
    torch.testing.assert_close(choice.sum(dim=2), torch.ones(32, kept))
    assert choice.sum(dim=1).max() < 1.001, "a view is kept once"


def test_horizontal_looks_level_and_bottom_stands_low():
    scores, cameras = drawn()
    level = selector("horizontal", num_views=1)(scores, cameras)[:, 0].argmax(dim=1)
    low = selector("bottom", num_views=1)(scores, cameras)[:, 0].argmax(dim=1)
    assert torch.equal(level, cameras[..., 5].abs().argmin(dim=1))
    assert torch.equal(low, cameras[..., 2].argmin(dim=1))


def test_random_views_are_a_rooms_own_whatever_is_asked():
    choose = selector("random", num_views=1)
    scores, cameras = drawn(batch=600)
    views = choose(scores, cameras)[:, 0].argmax(dim=1)
    assert torch.equal(views, choose(1 - scores, cameras)[:, 0].argmax(dim=1))
    assert torch.bincount(views, minlength=V).min() > 60


def test_fixed_weights_are_those_given_and_do_not_learn():
    scores, cameras = drawn()
    fixed = selector("fixed", view_weights=(0.2, 0.7, 0.3))
    torch.testing.assert_close(fixed.utility(scores, cameras), scores @ torch.tensor([0.2, 0.7, 0.3]))
    assert not fixed(scores, cameras).requires_grad


def test_learnt_weights_start_where_the_fixed_ones_stand_by_default():
    scores, cameras = drawn()
    torch.testing.assert_close(selector().utility(scores, cameras), selector("fixed").utility(scores, cameras))


def test_a_choice_sends_a_gradient_to_each_weight():
    choose = selector()
    values = torch.randn(32, V, 5, generator=torch.Generator().manual_seed(1))
    (choose(*drawn()) @ values).square().mean().backward()
    assert choose.text_weight.grad.abs() > 1e-6
    assert choose.clip_logit.grad.abs() > 1e-6


@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 2.5, 30.0])
def test_image_and_clip_weights_add_up_to_one_wherever_training_takes_them(logit):
    choose = selector()
    torch.nn.init.constant_(choose.clip_logit, logit)
    _, image3d, clip = choose.weights()
    assert (image3d + clip).item() == pytest.approx(1, abs=1e-6)
    assert 0 <= image3d.item() <= 1


@pytest.mark.parametrize("start", [-0.5, 0.3, 1.0])
def test_the_text_weight_is_pulled_as_by_an_l2_term(start):
    choose = selector(pull=0.1)
    torch.nn.init.constant_(choose.text_weight, start)
    (3 * choose.weights().text3d).backward()
    assert choose.text_weight.grad.item() == pytest.approx(3 + 2 * 0.1 * (start - TEXT_WEIGHT), abs=1e-6)


def test_without_a_loss_of_its_own_the_text_weight_comes_back():
    choose = selector(pull=0.1)
    torch.nn.init.constant_(choose.text_weight, 1.0)
    optimizer = torch.optim.SGD([choose.text_weight], lr=1.0)
    for _ in range(40):
        optimizer.zero_grad()
        (0 * choose.weights().text3d).backward()
        optimizer.step()
    assert choose.text_weight.item() == pytest.approx(TEXT_WEIGHT, abs=1e-3)


@pytest.mark.parametrize(("telling", "start"), [(2, -3.0), (1, 3.0)], ids=["clip tells", "image3d tells"])
def test_training_finds_the_score_that_tells_where_the_answer_is(telling, start):
    """One view of each room shows the answer, the others show wrong ones; one score says which, the others are noise."""
    torch.manual_seed(0)
    choose = selector(num_views=1)
    torch.nn.init.constant_(choose.clip_logit, start)
    optimizer = torch.optim.Adam(choose.parameters(), lr=0.1)

    def step(batch=128):
        scores, cameras = torch.rand(batch, V, 3), torch.zeros(batch, V, 6)
        where, answer = torch.randint(V, (batch,)), torch.randint(4, (batch,))
        scores[torch.arange(batch), where, telling] += 1
        shown = (answer[:, None] + torch.randint(1, 4, (batch, V))) % 4
        shown[torch.arange(batch), where] = answer
        choice = choose(scores, cameras)
        logits = 4 * (choice @ torch.nn.functional.one_hot(shown, 4).float())[:, 0]
        right = (choice[:, 0].argmax(dim=1) == where).float().mean().item()
        return torch.nn.functional.cross_entropy(logits, answer), right

    _, before = step()
    for _ in range(150):
        optimizer.zero_grad()
        step()[0].backward()
        optimizer.step()
    after = step()[1]
    assert before < 0.6 < 0.9 < after
