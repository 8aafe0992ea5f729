"""Prompt choice is a function of (seed, step): complete, disjoint over processes, the same after a resume."""

from __future__ import annotations

from collections import Counter

import pytest

from open_rs.train.selection import ORDERS, build_selection
from open_rs.types import Problem, UserError

PROBLEMS = [Problem(str(n), "q", "a", "test", {"pass_rate": rate}) for n, rate in enumerate([0.0, 0.5, 1.0, 0.25] * 10)]


@pytest.mark.parametrize("name", ORDERS)
def test_every_problem_comes_once_in_an_epoch(name: str) -> None:
    selection = build_selection(name, PROBLEMS, 8, seed=3)
    epoch = [problem.id for step in range(5) for problem in selection.pick(step)]
    assert sorted(epoch) == sorted(problem.id for problem in PROBLEMS)
    assert epoch != [problem.id for step in range(5, 10) for problem in selection.pick(step)]


@pytest.mark.parametrize("name", ORDERS)
def test_a_step_can_be_picked_alone(name: str) -> None:
    one, other = (build_selection(name, PROBLEMS, 8, seed=3) for _ in range(2))
    for step in range(20):
        one.pick(step)
    assert one.pick(7) == other.pick(7)


def test_shares_of_processes_make_up_the_step() -> None:
    whole = build_selection("shuffle", PROBLEMS, 8, seed=0).pick(2)
    shares = [build_selection("shuffle", PROBLEMS, 8, 0, rank, 4).pick(2) for rank in range(4)]
    assert Counter(p.id for share in shares for p in share) == Counter(p.id for p in whole)
    assert {len(share) for share in shares} == {2}


def test_no_problem_stands_twice_in_a_step_at_the_end_of_an_epoch() -> None:
    selection = build_selection("shuffle", PROBLEMS, 12, seed=0)
    assert all(len({p.id for p in selection.pick(step)}) == 12 for step in range(12))


def test_problems_that_teach_tend_to_come_first() -> None:
    first = [p.meta["pass_rate"] for s in range(40) for p in build_selection("pass_rate", PROBLEMS, 10, s).pick(0)]
    last = [p.meta["pass_rate"] for s in range(40) for p in build_selection("pass_rate", PROBLEMS, 10, s).pick(3)]
    assert first.count(0.5) > 2 * last.count(0.5)


def test_more_prompts_than_problems_are_refused() -> None:
    with pytest.raises(UserError, match="41 prompts a step, but only 40 problems"):
        build_selection("shuffle", PROBLEMS, 41, seed=0)
