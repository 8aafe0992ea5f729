"""The embedded task: sums and products to work out, with training and held-out problems apart by construction.

A problem's split is a hash of its expression with terms and factors sorted, so no seed, count or difficulty can put a
problem, or a reordering of it, on both sides.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from open_rs.config.schema import ArithmeticConfig
from open_rs.types import Problem, UserError

Split = Literal["train", "held_out"]
Step = tuple[str, int]  # an operator and the operand behind it; the first operand stands behind "+"

HELD_OUT_ONE_IN = 5
MAX_REFUSED_DRAWS = 10_000  # in a row; then drawing is given up for listing what is left


@dataclass(frozen=True, slots=True)
class Running:
    """A prefix of an expression, as `settled + sign * product`; the product may still grow."""

    settled: int = 0
    sign: int = 1
    product: int = 0

    @property
    def value(self) -> int:
        return self.settled + self.sign * self.product

    def extend(self, operator: str, operand: int) -> Running:
        if operator == "*":
            return Running(self.settled, self.sign, self.product * operand)
        return Running(self.value, 1 if operator == "+" else -1, operand)

    def limit(self, operator: str, largest: int) -> int:
        """The largest next operand that leaves the running value at zero or above; 0 where there is none."""
        if operator == "-":
            return min(largest, self.value)
        if operator == "*" and self.sign < 0:
            return min(largest, self.settled // self.product)
        return largest


def generate(config: ArithmeticConfig, split: Split, num_problems: int | None = None) -> list[Problem]:
    """Draw different problems of one split; the same arguments always give the same list.

    Operands run from 1 to `10 ** max_digits - 1`, their digit counts and the number of operands drawn about evenly.
    `*` binds before `+` and `-`, and no prefix of an expression falls below zero. `num_problems` replaces the
    configured number.
    `Problem.meta` states `operands`, `digits` (of the longest operand) and the `expression`.

    Raises `UserError` for settings that contradict each other, and when fewer problems exist than are asked for.

    >>> generate(ArithmeticConfig(num_problems=1), "train")[0].question
    'What is 8 + 8 - 7?'
    """
    check(config)
    wanted = config.num_problems if num_problems is None else num_problems
    rng = random.Random(f"arithmetic/{config.seed}/{split}")
    chosen: dict[str, list[Step]] = {}
    refused = 0
    while len(chosen) < wanted and refused < MAX_REFUSED_DRAWS:
        steps = draw(config, rng)
        if steps is None or write(steps) in chosen or split_of(steps) != split:
            refused += 1
            continue
        chosen[write(steps)] = steps
        refused = 0
    if len(chosen) < wanted:
        chosen |= list_missing(config, split, chosen, wanted, rng)
    return [to_problem(steps) for steps in chosen.values()]


def one_operand_longer(config: ArithmeticConfig) -> ArithmeticConfig:
    """The same task with one operand more than its longest problem, to see whether a skill reaches further."""
    longer = config.max_operands + 1
    return config.model_copy(update={"min_operands": longer, "max_operands": longer})


def check(config: ArithmeticConfig) -> None:
    if not config.operators or set(config.operators) - set("+-*"):
        raise UserError(f"data.arithmetic.operators: {config.operators!r} is not made of + - *; write for example '+-'")


def draw(config: ArithmeticConfig, rng: random.Random) -> list[Step] | None:
    """One random expression, or None where the prefix drawn so far leaves no operand to go on with."""
    num_operands = rng.randint(config.min_operands, config.max_operands)
    steps: list[Step] = []
    running = Running()
    for index in range(num_operands):
        operator = rng.choice(config.operators) if index else "+"
        limit = running.limit(operator, 10**config.max_digits - 1)
        if limit < 1:
            return None
        num_digits = rng.randint(1, len(str(limit)))
        operand = rng.randint(10 ** (num_digits - 1), min(limit, 10**num_digits - 1))
        steps.append((operator, operand))
        running = running.extend(operator, operand)
    return steps


def list_all(config: ArithmeticConfig, num_operands: int) -> Iterator[list[Step]]:
    """Every expression of so many operands, depth first."""

    def grow(steps: list[Step], running: Running) -> Iterator[list[Step]]:
        if len(steps) == num_operands:
            yield steps
            return
        for operator in sorted(set(config.operators)) if steps else "+":
            for operand in range(1, running.limit(operator, 10**config.max_digits - 1) + 1):
                yield from grow([*steps, (operator, operand)], running.extend(operator, operand))

    yield from grow([], Running())


def list_missing(
    config: ArithmeticConfig, split: Split, chosen: dict[str, list[Step]], wanted: int, rng: random.Random
) -> dict[str, list[Step]]:
    """What a nearly exhausted space still holds, as many as are missing; an error when it holds fewer."""
    spare = {
        write(steps): steps
        for num_operands in range(config.min_operands, config.max_operands + 1)
        for steps in list_all(config, num_operands)
        if write(steps) not in chosen and split_of(steps) == split
    }
    missing = wanted - len(chosen)
    if missing > len(spare):
        possible = len(chosen) + len(spare)
        raise UserError(
            f"data.arithmetic.num_problems: {wanted} {split} problems asked for, but only {possible} different ones "
            f"exist with {config.min_operands} to {config.max_operands} operands of at most {config.max_digits} digits "
            f"and operators {config.operators!r}; ask for fewer, or raise max_operands or max_digits"
        )
    names = list(spare)
    rng.shuffle(names)
    return {name: spare[name] for name in islice(names, missing)}


def split_of(steps: list[Step]) -> Split:
    """The split that an expression and all its reorderings belong to."""
    digest = hashlib.sha256(sorted_form(steps).encode()).digest()
    return "held_out" if int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0 else "train"


def sorted_form(steps: list[Step]) -> str:
    """The expression with factors sorted inside terms and terms sorted: `3*2-1+5` becomes `+2*3+5-1`."""
    terms: list[tuple[str, list[int]]] = []
    for operator, operand in steps:
        if operator == "*":
            terms[-1][1].append(operand)
        else:
            terms.append((operator, [operand]))
    return "".join(sorted(sign + "*".join(map(str, sorted(factors))) for sign, factors in terms))


def write(steps: list[Step], space: str = "") -> str:
    """The expression as text: `47+38-12`, or with a space around each operator."""
    return "".join(
        f"{space}{operator}{space}{operand}" if i else str(operand) for i, (operator, operand) in enumerate(steps)
    )


def to_problem(steps: list[Step]) -> Problem:
    running = Running()
    for operator, operand in steps:
        running = running.extend(operator, operand)
    digits = max(len(str(operand)) for _, operand in steps)
    return Problem(
        id=f"arithmetic:{write(steps)}",
        question=f"What is {write(steps, space=' ')}?",
        answer=str(running.value),
        source="arithmetic",
        meta={"operands": len(steps), "digits": digits, "expression": write(steps)},
    )
