"""Learning-rate schedules are functions of progress with the shapes that transformers gives them."""

from __future__ import annotations

import math

import pytest

from open_rs.config.schema import OptimizerConfig
from open_rs.train.schedule import SCHEDULES, build_schedule
from open_rs.types import UserError


def optimizer(name: str, warmup: float = 0.1, floor: float = 0.1) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=2.0, lr_scheduler_type=name, warmup_ratio=warmup, min_lr_rate=floor)


POINTS = {
    "min lr, first of 500 steps": ("cosine_with_min_lr", 1 / 500, 2.0 / 50),
    "min lr, warm": ("cosine_with_min_lr", 0.1, 2.0),
    "min lr, half-way down": ("cosine_with_min_lr", 0.55, 1.1),
    "min lr, end": ("cosine_with_min_lr", 1.0, 0.2),
    "cosine, end": ("cosine", 1.0, 0.0),
    "linear, half-way down": ("linear", 0.55, 1.0),
    "constant, start": ("constant", 0.01, 2.0),
    "constant with warm-up, start": ("constant_with_warmup", 0.05, 1.0),
    "constant with warm-up, end": ("constant_with_warmup", 1.0, 2.0),
}


@pytest.mark.parametrize(("name", "progress", "rate"), POINTS.values(), ids=POINTS)
def test_rate_at(name: str, progress: float, rate: float) -> None:
    assert build_schedule(optimizer(name))(progress) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_every_rate_lies_between_nothing_and_the_peak(name: str, warmup: float) -> None:
    rates = [build_schedule(optimizer(name, warmup))((step + 1) / 97) for step in range(97)]
    assert all(0.0 <= rate <= 2.0 for rate in rates)
    assert rates[0] > 0.0


def test_cosine_with_min_lr_is_that_of_transformers() -> None:
    from transformers.optimization import _get_cosine_with_min_lr_schedule_with_warmup_lr_rate_lambda as reference

    ours = build_schedule(optimizer("cosine_with_min_lr"))
    for step in range(500):
        theirs = reference(step, num_warmup_steps=50, num_training_steps=500, num_cycles=0.5, min_lr_rate=0.1)
        assert math.isclose(ours((step + 1) / 500), 2.0 * theirs, rel_tol=1e-9)


def test_an_unknown_schedule_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="cosine_with_min_lr"):
        build_schedule(optimizer("cosine_with_min_lrs"))
