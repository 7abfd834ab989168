"""Schedules against their formulas, and against Paddle's own where it has them."""

from __future__ import annotations

import math

import paddle
import pytest

from resnet_fit.training.schedules.cosine import Cosine, OneCycle
from resnet_fit.training.schedules.steps import Constant, MultiStep, Step


def test_constant():
    assert [Constant().share(e, 10) for e in (0, 5.5)] == [1.0, 1.0]


def test_step_and_multi_step_fall_at_their_epochs():
    step = Step(every_epochs=30, factor=0.1)
    assert [step.share(e, 90) for e in (0, 29.99, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])
    multi = MultiStep(at_epochs=[82, 123])
    assert [multi.share(e, 164) for e in (81.99, 82, 122.9, 123, 164)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cosine_equals_paddles():
    ours = Cosine(end=0.1)
    theirs = paddle.optimizer.lr.CosineAnnealingDecay(1.0, T_max=100, eta_min=0.1)
    for step in range(101):
        assert ours.share(step / 10, 10) == pytest.approx(theirs(), abs=1e-9)
        theirs.step()


def test_one_cycle_equals_paddles():
    theirs = paddle.optimizer.lr.OneCycleLR(
        max_learning_rate=1.0,
        total_steps=100,
        divide_factor=25.0,
        end_learning_rate=0.01,
        phase_pct=0.3,
        anneal_strategy="linear",
    )
    # Paddle spreads its phases over total_steps - 1 and reaches the end at the last step.
    ours = OneCycle(peak=29 / 99, start=0.04, end=0.01, shape="linear")
    for step in range(100):
        assert ours.share(step / 10, 99 / 10) == pytest.approx(theirs(), abs=1e-6)
        theirs.step()


def test_one_cycle_cosine_is_smooth_and_meets_its_corners():
    cycle = OneCycle(peak=0.3, start=0.04, end=0.0)
    assert cycle.share(0, 10) == pytest.approx(0.04)
    assert cycle.share(3, 10) == pytest.approx(1.0)
    assert cycle.share(1.5, 10) == pytest.approx((1 + 0.04) / 2)
    assert cycle.share(6.5, 10) == pytest.approx(0.5)
    assert cycle.share(10, 10) == pytest.approx(0.0, abs=1e-12)
    assert abs(cycle.share(3.01, 10) - 1) < 1e-4


def test_warm_up_is_linear_and_leaves_milestones_alone():
    warm = MultiStep(at_epochs=[30], warmup_epochs=5, warmup_start=0.1)
    rate = warm.rate(1.0, 40, steps=2)
    rates = [rate.lr_lambda(step) for step in (0, 5, 10, 58, 60)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 0.1])


def test_applied_per_step():
    scheduler = Cosine().rate(0.4, epochs=2, steps=4)
    rates = []
    for _ in range(8):
        rates.append(scheduler())
        scheduler.step()
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
