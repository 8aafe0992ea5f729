"""Time, tokens and dollars of a whole run, from what a few seconds of it took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from open_rs.config.schema import Recipe
from open_rs.doctor.findings import Finding
from open_rs.train.budget import planned_steps
from open_rs.train.pace import Limits


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured: tokens a second while sampling at full width and while training, groups with a signal, mean length.

    `trained_per_second` is 0 where no rollout had a signal to train on.
    """

    sampled_per_second: float
    trained_per_second: float
    signal: float
    mean_tokens: float


@dataclass(frozen=True, slots=True)
class Projection:
    """A run at the measured pace. Dollars are None without a price; `limit_seconds` is the budget's, if it has one."""

    pace: Pace
    steps: int
    tokens_sampled: int
    step_seconds: float
    evaluation_seconds: float
    seconds: float
    usd: float | None
    limit_seconds: float | None
    steps_in_budget: int | None


def project(recipe: Recipe, pace: Pace, num_training: int, num_held_out: int) -> Projection:
    """Steps times tokens over pace, and the evaluations before and after."""
    train, rollout, limits = recipe.train, recipe.rollout, Limits.of(recipe.budget)
    steps = planned_steps(train, num_training)
    step_tokens = train.prompts_per_step * rollout.num_generations * pace.mean_tokens
    update = step_tokens * pace.signal / pace.trained_per_second if pace.trained_per_second else 0.0
    step_seconds = step_tokens / pace.sampled_per_second + update * recipe.algorithm.num_iterations
    samples = recipe.validation.samples + 1  # and one greedy
    evaluation = 2 * num_held_out * samples * pace.mean_tokens / pace.sampled_per_second
    in_budget = _steps_in_budget(limits, step_seconds, step_tokens, evaluation)
    if in_budget is not None:
        steps = in_budget if recipe.budget.stretch else min(steps, in_budget)
    seconds = steps * step_seconds + evaluation
    usd = None if limits.usd_per_second is None else seconds * limits.usd_per_second
    return Projection(
        pace=pace,
        steps=steps,
        tokens_sampled=round(steps * step_tokens),
        step_seconds=step_seconds,
        evaluation_seconds=evaluation,
        seconds=seconds,
        usd=usd,
        limit_seconds=limits.seconds,
        steps_in_budget=in_budget,
    )


def check_projection(recipe: Recipe, projection: Projection) -> Iterator[Finding]:
    """Say what the run takes, and refuse a budget in which no step fits."""
    pace = projection.pace
    dollars = "" if projection.usd is None else f", ${projection.usd:,.2f}"
    yield Finding(
        "fine",
        "cost",
        f"{projection.steps:,} steps of {projection.step_seconds:,.1f} s: {show_time(projection.seconds)}{dollars}, "
        f"{projection.tokens_sampled:,} sampled tokens ({pace.sampled_per_second:,.0f} tokens/s sampling, "
        f"{pace.trained_per_second:,.0f} training, {pace.mean_tokens:,.0f} tokens a completion)",
    )
    if projection.steps_in_budget == 0:
        yield Finding(
            "refused",
            "budget",
            f"budget: not one step of {projection.step_seconds:,.1f} s fits beside the evaluations of "
            f"{projection.evaluation_seconds:,.1f} s; raise the limit, or lower validation.num_problems",
        )


def show_time(seconds: float) -> str:
    """`5400` is `1 h 30 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _steps_in_budget(limits: Limits, step_seconds: float, step_tokens: float, evaluation: float) -> int | None:
    fits = []
    if limits.seconds is not None:
        fits.append((limits.seconds - max(limits.reserve_seconds, evaluation / 2) - evaluation / 2) / step_seconds)
    if limits.tokens is not None:
        fits.append(limits.tokens / step_tokens)
    return None if not fits else max(0, int(min(fits)))
