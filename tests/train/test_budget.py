"""A budget is never passed, is used, and always ends with the schedule finished."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from open_rs.config.schema import BudgetConfig, OptimizerConfig, TrainConfig
from open_rs.run_dir import RunDir
from open_rs.train.budget import Budget, planned_steps
from open_rs.train.pace import Pacer
from open_rs.train.schedule import build_schedule
from open_rs.types import UserError


@dataclass
class Clock:
    """Time that passes only when the run works."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Ran:
    steps: int
    seconds: float
    rates: list[float]
    tokens: int


def simulate(
    config: BudgetConfig,
    step_seconds: Callable[[int, float], float],
    max_steps: int = 60,
    load: float = 4.0,
    evaluation: float = 5.0,
    tokens_per_step: int = 10_000,
    most_tokens: int | None = None,
    growth: Callable[[int], float] = lambda step: 1.0,
) -> Ran:
    """A run of the loop's shape on a clock of its own; the last evaluation is as slow as the last step."""
    clock = Clock()
    budget = Budget.open(config, max_steps, clock=clock, most_tokens_per_step=most_tokens)
    rate = build_schedule(OptimizerConfig(learning_rate=1.0, lr_scheduler_type="cosine_with_min_lr", min_lr_rate=0.1))
    clock.now += load + evaluation
    budget.charge({"load": load, "evaluate": evaluation})
    step, rates, slowness = 0, [], 1.0
    while budget.goes_on(step):
        rates.append(rate(budget.progress(step)))
        seconds = step_seconds(step, clock.now - 1000.0)
        slowness = seconds / step_seconds(0, 0.0)
        phases = {"generate": seconds * 0.8, "update": seconds * 0.2}
        if step % 20 == 19:
            phases["validate"] = 0.5 * slowness
        clock.now += seconds + phases.get("validate", 0.0)
        budget.charge(phases, {"sampled": round(tokens_per_step * growth(step))}, step)
        step += 1
    clock.now += evaluation * max(1.0, slowness) * growth(step)
    budget.charge({"evaluate": evaluation})
    clock.now += 2.0  # the report
    return Ran(step, clock.now - 1000.0, rates, step * tokens_per_step)


SPEEDS = {
    "steady": lambda step, elapsed: 1.8,
    "first step slow": lambda step, elapsed: 6.0 if step == 0 else 1.8,
    "ragged": lambda step, elapsed: 1.5 + 0.8 * ((step * 7919) % 10) / 10,
    "half speed in the middle": lambda step, elapsed: 1.8 if step < 12 else 3.6,
    "twice as fast in the middle": lambda step, elapsed: 1.8 if step < 12 else 0.9,
    "slower and slower": lambda step, elapsed: 1.5 * 1.01**step,
}


@pytest.mark.parametrize("limit", [60.0, 120.0, 240.0])
@pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS)
def test_a_run_ends_inside_its_hours_with_the_schedule_finished(
    limit: float, speed: Callable[[int, float], float]
) -> None:
    ran = simulate(BudgetConfig(hours=limit / 3600, reserve_for_evaluation=0.02), speed)
    assert ran.seconds <= limit
    assert ran.rates[-1] == pytest.approx(0.1)
    assert ran.steps >= 3


@pytest.mark.parametrize("noise", [0.15, 0.3])
def test_uneven_steps_near_the_end_leave_no_schedule_unfinished(noise: float) -> None:
    for seed in range(40):
        chance = random.Random(seed)
        steps = [1.2 + 1.2 * noise * abs(chance.gauss()) for _ in range(60)]
        ran = simulate(BudgetConfig(hours=60 / 3600), lambda step, _, steps=steps: steps[step], 60, 3.0, 3.0)
        assert 54.0 <= ran.seconds <= 60.0
        assert ran.rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("limit", [60.0, 120.0, 240.0])
def test_the_last_evaluation_is_expected_to_sample_the_longer_answers_of_now(limit: float) -> None:
    longer: Callable[[int], float] = lambda step: min(1.6, 1.0 + step / 40)  # noqa: E731
    ran = simulate(BudgetConfig(hours=limit / 3600), lambda step, elapsed: 1.5, evaluation=9.0, growth=longer)
    assert ran.seconds <= limit


@pytest.mark.parametrize("limit", [60.0, 120.0, 240.0])
@pytest.mark.parametrize("name", ["steady", "twice as fast in the middle"])
def test_nine_tenths_of_the_hours_are_used(limit: float, name: str) -> None:
    ran = simulate(BudgetConfig(hours=limit / 3600, reserve_for_evaluation=0.02), SPEEDS[name])
    assert ran.seconds >= 0.9 * limit


def test_without_limits_progress_is_the_share_of_the_steps() -> None:
    budget = Budget.open(BudgetConfig(gpu_hour_usd=1.0), 8, clock=Clock())
    assert [budget.progress(step) for step in range(8)] == [(step + 1) / 8 for step in range(8)]
    assert [budget.goes_on(step) for step in (0, 7, 8)] == [True, True, False]


def test_the_schedule_never_jumps_when_the_plan_changes() -> None:
    ran = simulate(BudgetConfig(hours=240 / 3600, reserve_for_evaluation=0.02), SPEEDS["half speed in the middle"])
    falls = [before - after for before, after in zip(ran.rates, ran.rates[1:], strict=False)]
    assert max(falls) < 0.12


def test_a_budget_that_may_not_stretch_keeps_the_recipes_steps() -> None:
    assert simulate(BudgetConfig(hours=1, stretch=False), SPEEDS["steady"], max_steps=10).steps == 10
    assert simulate(BudgetConfig(hours=1), SPEEDS["steady"], max_steps=10).steps > 1000


def test_dollars_are_time_on_all_gpus() -> None:
    config = BudgetConfig(usd=0.1, gpu_hour_usd=0.5, gpus=4, reserve_for_evaluation=0.05)
    ran = simulate(config, SPEEDS["steady"])
    assert 0.9 * 180 <= ran.seconds <= 180


def test_tokens_are_never_passed() -> None:
    ran = simulate(BudgetConfig(tokens=300_000), SPEEDS["steady"], most_tokens=32_000)
    assert 0.85 * 300_000 <= ran.tokens <= 300_000
    assert ran.rates[-1] == pytest.approx(0.1)


def test_the_tightest_limit_binds() -> None:
    config = BudgetConfig(hours=1, usd=0.05, gpu_hour_usd=1.0, tokens=10**9)
    assert simulate(config, SPEEDS["steady"]).seconds <= 180


TOO_SMALL = {
    "seconds": (BudgetConfig(hours=5 / 3600), "budget.hours: 5 seconds"),
    "dollars": (BudgetConfig(usd=0.001, gpu_hour_usd=1.0), "budget.usd and budget.hours: 4 seconds"),
}


@pytest.mark.parametrize(("config", "words"), TOO_SMALL.values(), ids=TOO_SMALL)
def test_a_budget_too_small_for_one_step_is_refused(config: BudgetConfig, words: str) -> None:
    with pytest.raises(UserError, match=words):
        simulate(config, SPEEDS["steady"])


def test_a_token_budget_too_small_for_one_step_is_refused() -> None:
    with pytest.raises(UserError, match=r"budget\.tokens: 5,000 .* 32,000"):
        simulate(BudgetConfig(tokens=5_000), SPEEDS["steady"], most_tokens=32_000)


def test_an_expected_step_that_does_not_fit_is_refused_before_it_runs() -> None:
    clock = Clock()
    budget = Budget.open(BudgetConfig(hours=60 / 3600), 10, clock=clock)
    budget.expect(step_seconds=100.0)
    with pytest.raises(UserError, match="60 seconds are too few"):
        budget.goes_on(0)


def test_the_ledger_survives_a_resume(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "")
    clock = Clock()
    config = BudgetConfig(hours=120 / 3600, gpu_hour_usd=3.6)
    first = Budget.open(config, 60, run, clock=clock)
    for step in range(5):
        assert first.goes_on(step)
        progress = first.progress(step)
        clock.now += 2.0
        first.charge({"generate": 1.5}, {"sampled": 100, "trained": 80}, step)
    clock.now += 500.0  # the machine was off
    second = Budget.open(config, 60, run, clock=clock)
    assert second.progress(5) > progress
    assert second.spending(5).seconds == pytest.approx(10.0)
    clock.now += 2.0
    second.charge({"generate": 1.5}, {"sampled": 100, "trained": 80}, 5)
    totals = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert totals["tokens"] == {"sampled": 600, "trained": 480}
    assert totals["phases"]["generate"] == {"seconds": pytest.approx(9.0), "usd": pytest.approx(0.009)}
    assert (totals["seconds"], totals["sessions"], totals["steps"]) == (pytest.approx(12.0), 2, 6)


def test_spending_reads_as_one_line() -> None:
    clock = Clock()
    budget = Budget.open(BudgetConfig(usd=1.0, gpu_hour_usd=36.0), 50, clock=clock)
    budget.progress(0)
    clock.now += 10.0
    line = str(budget.charge({"generate": 9.0}, {"sampled": 5}, 0))
    assert line.startswith("0:10 of 1:40 (limit 1:40), $0.10 of $1.00, step 1 of")


EPOCHS = {"by steps": (None, 500), "one pass": (1.0, 584), "less than a step": (0.0001, 1)}


@pytest.mark.parametrize(("epochs", "steps"), EPOCHS.values(), ids=EPOCHS)
def test_planned_steps(epochs: float | None, steps: int) -> None:
    assert planned_steps(TrainConfig(num_train_epochs=epochs, prompts_per_step=12), 7000) == steps


@pytest.mark.parametrize(("step_seconds", "alarming"), [(0.3, False), (3.0, True), (100.0, True)])
def test_two_slow_steps_alarm_only_where_they_take_long_enough_to_mean_something(
    step_seconds: float, alarming: bool
) -> None:
    pacer = Pacer(reserve_seconds=0.0)
    for number in range(42):
        seconds = step_seconds * (2.0 if number >= 40 else 1.0)
        pacer.watch(seconds, {"generate": seconds}, tokens=1_000)
    pace = pacer.pace(evaluation_seconds=10.0)
    assert pace is not None
    assert (pace.closing_seconds > 20.0) == alarming  # twice the first evaluation, or little more than it
