"""Which problems a step trains on: a function of (seed, step) alone, so a resumed run picks what the first would."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from open_rs.types import Problem, UserError

Order = Callable[[int, int], tuple[Problem, ...]]  # (seed, epoch) -> every problem once


@dataclass(frozen=True)
class Selection:
    """`pick(step)` gives this process its share of the step's problems; the shares of all processes never overlap."""

    order: Order
    steps_per_epoch: int
    prompts_per_step: int
    seed: int
    process_index: int = 0
    num_processes: int = 1

    def pick(self, step: int) -> list[Problem]:
        """The problems [Q] of one step on this process, each different.

        An epoch ends where the problems left are too few for a whole step, so no step straddles two epochs.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        first = step_in_epoch * self.prompts_per_step
        chosen = self.order(self.seed, epoch)[first : first + self.prompts_per_step]
        return list(chosen[self.process_index :: self.num_processes])


def build_selection(
    name: str,
    problems: Sequence[Problem],
    prompts_per_step: int,
    seed: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> Selection:
    """Order the problems by the named rule.

    Raises UserError where a step has more prompts than there are problems: one problem would stand twice in a step.
    """
    if prompts_per_step > len(problems):
        raise UserError(
            f"train.prompts_per_step: {prompts_per_step} prompts a step, but only {len(problems)} problems; "
            f"use at most {len(problems)}, or more data"
        )
    order = lru_cache(maxsize=2)(ORDERS[name](tuple(problems)))
    steps_per_epoch = len(problems) // prompts_per_step
    return Selection(order, steps_per_epoch, prompts_per_step, seed, process_index, num_processes)


def _shuffled(problems: tuple[Problem, ...]) -> Order:
    return lambda seed, epoch: tuple(random.Random(f"order/{seed}/{epoch}").sample(problems, len(problems)))


def _by_pass_rate(problems: tuple[Problem, ...]) -> Order:
    """Problems whose measured pass rate p makes p(1-p) large tend to come first: they are the ones that teach.

    Weighted sampling without replacement (Efraimidis and Spirakis 2006). Problems without a measured rate count as 0.5,
    and none has weight zero, because a rate was measured on another policy.
    """
    weights = [_signal(problem) for problem in problems]

    def order(seed: int, epoch: int) -> tuple[Problem, ...]:
        random_source = random.Random(f"order/{seed}/{epoch}")
        keys = [math.log(1.0 - random_source.random()) / weight for weight in weights]
        return tuple(problem for _, problem in sorted(zip(keys, problems, strict=True), key=lambda pair: -pair[0]))

    return order


def _signal(problem: Problem) -> float:
    rate = problem.meta.get("pass_rate")
    rate = 0.5 if rate is None else min(max(float(rate), 0.0), 1.0)
    return rate * (1.0 - rate) + 0.02


ORDERS: dict[str, Callable[[tuple[Problem, ...]], Order]] = {"shuffle": _shuffled, "pass_rate": _by_pass_rate}
