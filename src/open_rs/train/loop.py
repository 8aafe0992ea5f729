"""One training step, and the run around it. Start reading here.

The step differs from the paper's in one thing: what it counts is exact. Advantages are taken within a group that stays on
one process, weights are set before the first micro-batch, and every random choice is a function of the step, so a run that
was cut off repeats the run that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from open_rs.rewards import score
from open_rs.rollout.engine import Sampling
from open_rs.train import checkpoint, metrics
from open_rs.train.batch import build_batch
from open_rs.train.collect import collect
from open_rs.train.parts import Parts
from open_rs.train.phases import Phases

Observe = Callable[[str, Mapping[str, Any]], None]  # (kind of event, what there is to know of it)


def run_steps(parts: Parts, step: int, observe: Observe) -> int:
    """Train from `step` until the budget's last step; returns the number of the step after the last one run."""
    parts.save(step)
    while step < parts.budget.last_step:
        row = one_step(parts, step)
        alarm = parts.guard.watch(step, row)
        if alarm.action != "go on":
            parts.run.event(alarm.action, step=step, why=alarm.why)
            observe("alarm", {"action": alarm.action, "why": alarm.why})
        if alarm.action == "stop":
            return step + 1
        if alarm.action == "roll back":
            step = parts.roll_back()
            continue
        step += 1
        if parts.validation_is_due(step):
            row |= parts.validate(step)
        parts.run.append("metrics.jsonl", row)
        observe("step", row | {"last_step": parts.budget.last_step})
        if parts.checkpoint_is_due(step):
            parts.save(step)
    return step


def one_step(parts: Parts, step: int) -> dict[str, Any]:
    """Pick problems, sample, grade, score, update; returns the step's metrics."""
    phases = Phases()
    problems = parts.selection.pick(step)  # [Q]
    with phases("load"), parts.engine.awake():
        parts.engine.load(parts.policy.model, version=step)
    with phases("sample"), parts.engine.awake():
        rollouts = parts.engine.generate(parts.requests(problems), parts.sampling(step))
        groups = collect(problems, rollouts, parts.grader, phases)  # [Q]
    with phases("score"):
        scores = [score(group, parts.terms) for group in groups]  # [Q][G]
    with phases("update"):
        batch = build_batch(groups, scores, parts.recipe.algorithm)  # [N, T]
        stats = parts.policy.update(batch, parts.learning_rate(step))
    counts = parts.policy.sum_over_processes(metrics.count(groups, scores))
    parts.write_rollouts(step, groups, scores)
    parts.budget.charge(step, phases.seconds, counts)
    return {"step": step + 1, **metrics.summarise(counts), **stats, **phases.row(counts["tokens"])}
