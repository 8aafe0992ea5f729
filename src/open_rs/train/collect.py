"""Rollouts into graded groups: each one goes to the grader as it finishes, so grading overlaps generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from open_rs.grading import Grader
from open_rs.train.phases import Phases
from open_rs.types import Group, Problem, Rollout, Verdict


class Pending(Protocol):
    """A verdict that is on its way."""

    def result(self) -> Verdict: ...


def collect(
    problems: Sequence[Problem],
    rollouts: Iterable[Rollout],
    grader: Grader,
    reasoning_open: Callable[[str], bool],
    phases: Phases,
) -> list[Group]:
    """Group the rollouts of each problem, samples in order; `reasoning_open(problem_id)` tells whether its prompt ends
    inside `<think>`. Time spent here after the last rollout, waiting for verdicts, is the phase "grade".
    """
    golds = {problem.id: problem.answer for problem in problems}
    pending: dict[str, list[tuple[Rollout, Pending]]] = {problem.id: [] for problem in problems}
    for rollout in rollouts:
        name = rollout.problem_id
        verdict = grader.submit(golds[name], rollout.text, reasoning_open=reasoning_open(name))
        pending[name].append((rollout, verdict))
    with phases("grade"):
        return [_group(problem, pending[problem.id]) for problem in problems]


def _group(problem: Problem, pending: list[tuple[Rollout, Pending]]) -> Group:
    ordered = sorted(pending, key=lambda pair: pair[0].sample)
    return Group(problem, tuple(rollout for rollout, _ in ordered), tuple(verdict.result() for _, verdict in ordered))
