"""Schedules against their formulas, and against Paddle's own where it has them."""

from __future__ import annotations

import math

import paddle
import pytest

from resnet_fit.training import schedules


def test_constant():
    assert [schedules.constant()(e) for e in (0, 5.5)] == [1.0, 1.0]


def test_step_and_multi_step_fall_at_their_epochs():
    step = schedules.step(30, 0.1)
    assert [step(e) for e in (0, 29.99, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])
    multi = schedules.multi_step([82, 123])
    assert [multi(e) for e in (81.99, 82, 122.9, 123, 164)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01]
    )


def test_cosine_equals_paddles():
    ours = schedules.cosine(10, end=0.1)
    theirs = paddle.optimizer.lr.CosineAnnealingDecay(1.0, T_max=100, eta_min=0.1)
    for step in range(101):
        assert ours(step / 10) == pytest.approx(theirs(), abs=1e-9)
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
    ours = schedules.one_cycle(99 / 10, 29 / 99, 0.04, 0.01, "linear")
    for step in range(100):
        assert ours(step / 10) == pytest.approx(theirs(), abs=1e-6)
        theirs.step()


def test_one_cycle_cosine_is_smooth_and_meets_its_corners():
    cycle = schedules.one_cycle(10, 0.3, 0.04, 0.0)
    assert cycle(0) == pytest.approx(0.04)
    assert cycle(3) == pytest.approx(1.0)
    assert cycle(1.5) == pytest.approx((1 + 0.04) / 2)
    assert cycle(6.5) == pytest.approx(0.5)
    assert cycle(10) == pytest.approx(0.0, abs=1e-12)
    assert abs(cycle(3.01) - 1) < 1e-4


def test_warm_up_is_linear_and_leaves_milestones_alone():
    warm = schedules.warm_up(5, 0.1, schedules.multi_step([30]))
    assert [warm(e) for e in (0, 2.5, 5, 29, 30)] == pytest.approx([0.1, 0.55, 1, 1, 0.1])
    assert schedules.warm_up(0, 0.1, schedules.constant())(0) == 1.0


def test_applied_per_step():
    scheduler = schedules.per_step(schedules.cosine(2), 0.4, steps_per_epoch=4)
    rates = []
    for _ in range(8):
        rates.append(scheduler())
        scheduler.step()
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
