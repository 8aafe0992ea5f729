"""One training step, and the steps of a run. Start reading here.

The step is the paper's: sample a group of completions for each problem, grade, score, move the policy towards what
scored above its group. What differs is that nothing in it depends on luck that can't be repeated: every random choice
is a function of the step's number, so a run that was cut off goes on as the one that was not.
"""

from __future__ import annotations

from typing import Any

from open_rs.rewards import score
from open_rs.train import metrics, proof
from open_rs.train.batch import build_batch
from open_rs.train.collect import collect
from open_rs.train.parts import Parts
from open_rs.train.phases import Phases


def run_steps(parts: Parts, step: int) -> int:
    """Train from `step` (counted from 0) until the budget is used; returns the number of steps taken."""
    while parts.goes_on(step):
        row = one_step(parts, step)
        alarm = parts.guard.watch(step, row)
        if alarm.action == "roll back":
            parts.alarm(alarm)
            step = parts.resume()
            continue
        step += 1
        if parts.validation_is_due(step):
            row |= proof.validate(parts, step)
        parts.log(row)
        if alarm.action != "go on":
            parts.alarm(alarm)
        if alarm.action == "stop":
            break
        if parts.checkpoint_is_due(step):
            parts.save(step)
    return step


def one_step(parts: Parts, step: int) -> dict[str, Any]:
    """Pick problems, sample, grade, score, update. Returns the step's metrics; shapes are those of `types.py`."""
    phases, progress = Phases(), parts.progress(step)
    problems = parts.selection.pick(step)  # [Q]
    with parts.engine.awake():
        with phases("load"):
            parts.engine.load(parts.policy.model, version=step)
        with phases("generate"):
            rollouts = parts.engine.generate(parts.requests(problems), parts.sampling(step))
            groups = collect(problems, rollouts, parts.grader, parts.reasoning_open, phases)  # [Q]
    with phases("score"):
        scores = [score(group, parts.terms) for group in groups]  # [Q][G]
    with phases("update"):
        batch = build_batch(groups, scores, parts.recipe.algorithm, **parts.batch_settings)  # [N, T]
        stats = parts.policy.update(batch, parts.learning_rate(progress))
    sums = parts.sum_over_processes(metrics.count(groups, scores, parts.term_names))
    parts.write_rollouts(step, groups, scores)
    parts.charge(phases, sums, step)
    return {"step": step + 1, **metrics.summarise(sums), **stats, **phases.row(sums["tokens"])}
