"""The guard acts on what lasts, at once on what is not finite, and never for ever."""

from __future__ import annotations

import math

import pytest

from open_rs.config.schema import GuardConfig
from open_rs.train.guard import Guard

CALM = {"loss": 0.1, "grad_norm": 1.0, "accuracy": 0.5, "sampler_kl": 0.001, "kl": 0.0, "truncated": 0.1}


def watch(guard: Guard, rows: list[dict[str, float]]) -> list[str]:
    return [guard.watch(step, CALM | row).action for step, row in enumerate(rows)]


def test_a_calm_run_goes_on() -> None:
    assert set(watch(Guard(GuardConfig()), [{}] * 50)) == {"go on"}


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "inf"])
def test_what_is_not_finite_acts_at_once(key: str, value: float) -> None:
    alarm = Guard(GuardConfig()).watch(3, CALM | {key: value})
    assert alarm.action == "roll back"
    assert key in alarm.why


LIMITS = {
    "sampler_kl": ({"max_sampler_kl": 0.05}, {"sampler_kl": 0.06}),
    "kl": ({"max_kl": 1.0}, {"kl": 2.0}),
    "grad_norm": ({"max_grad_norm": 10.0}, {"grad_norm": 11.0}),
    "truncated": ({"max_truncated": 0.5}, {"truncated": 0.6}),
}


@pytest.mark.parametrize(("config", "row"), LIMITS.values(), ids=LIMITS.keys())
def test_a_limit_acts_after_patience_and_a_single_spike_does_not(config: dict, row: dict) -> None:
    settings = GuardConfig(patience=3, action="stop", **config)
    assert watch(Guard(settings), [row, row, {}, row, row]) == ["go on"] * 5
    assert watch(Guard(settings), [row, row, row]) == ["go on", "go on", "stop"]


def test_an_accuracy_that_falls_is_noticed() -> None:
    guard = Guard(GuardConfig(accuracy_drop=0.2, patience=2, action="stop"))
    assert watch(guard, [{"accuracy": 0.8}] * 20)[-1] == "go on"
    assert "stop" in watch(guard, [{"accuracy": 0.3}] * 10)


def test_roll_backs_halve_the_rate_and_end() -> None:
    guard = Guard(GuardConfig(max_rollbacks=2))
    assert watch(guard, [{"loss": math.nan}] * 3) == ["roll back", "roll back", "stop"]
    assert guard.learning_rate_factor == 0.25


def test_a_restored_state_keeps_the_count_of_roll_backs() -> None:
    guard = Guard(GuardConfig())
    before = guard.state()
    guard.watch(0, {"loss": math.nan})
    guard.load_state(before)
    assert guard.num_rollbacks == 1
