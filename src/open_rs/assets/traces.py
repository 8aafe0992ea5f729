"""What the tiny model is taught to write: careful sums, and the habits of a pupil in a hurry.

A careful line works digit by digit and then rewrites the sum, one operand shorter:

    47+38-12
    ones 7+8=15, tens 4+3+1=8, so 85-12
    ones 5-2=3, tens 8-1=7, so 73

A hurried line skips to `so`, where a carry is easily forgotten; a guess (`maybe 71`) skips everything.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

COLUMNS = ("ones", "tens", "hundreds", "thousands")
CLOSE = "\n</think>\n"


@dataclass(frozen=True, slots=True)
class Habits:
    """How often the pupil is careful and how often not; every field is a probability.

    `moods` holds the chances of a careful line, one of them drawn for each trace.
    """

    moods: tuple[float, ...] = (0.1, 0.4, 0.85)
    guess_at_once: float = 0.12
    guess_midway: float = 0.04
    guess_right: float = 0.15
    skip_right: float = 0.15
    skip_near: float = 0.15
    careful_forgets_carry: float = 0.03
    forgets_to_close: float = 0.05


CAREFUL = Habits((1.0,), 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0)
HURRIED = Habits()


@dataclass(frozen=True, slots=True)
class Column:
    """One digit's work: `text` as written, the `digit` it yields, and whether it carries (or borrows) on."""

    text: str
    digit: int
    carries: bool


def write_trace(expression: str, habits: Habits, rng: random.Random) -> str:
    """A whole completion for `47+38-12`, without the stop token."""
    reasoning, answer = reason(expression, habits, rng)
    close = "\n" if rng.random() < habits.forgets_to_close else CLOSE
    return f"{reasoning}{close}Answer: \\boxed{{{answer}}}"


def reason(expression: str, habits: Habits, rng: random.Random) -> tuple[str, int]:
    """The reasoning before `</think>` and the number it arrives at."""
    answer = evaluate(expression)
    if rng.random() < habits.guess_at_once:
        guess = make_guess(answer, habits, rng)
        return f"maybe {guess}", guess
    mood = rng.choice(habits.moods)
    total, steps = split_expression(expression)
    lines = [expression]
    for index, (operator, operand) in enumerate(steps):
        stuck = operator == "-" and operand > total
        if stuck or (index and rng.random() < habits.guess_midway):
            guess = make_guess(answer, habits, rng)
            return "\n".join([*lines, f"maybe {guess}"]), guess
        rest = "".join(f"{sign}{number}" for sign, number in steps[index + 1 :])
        work, total = take_step(total, operator, operand, rng.random() < mood, habits, rng)
        lines.append(f"{work}so {total}{rest}")
    return "\n".join(lines), total


def take_step(
    total: int, operator: str, operand: int, careful: bool, habits: Habits, rng: random.Random
) -> tuple[str, int]:
    """The digit work (empty when skipped) of one operation, and its result, right or wrong."""
    if careful:
        columns = work_columns(total, operator, operand, rng.random() < habits.careful_forgets_carry)
        work = ", ".join(f"{name} {column.text}" for name, column in zip(COLUMNS, columns, strict=False))
        return f"{work}, ", read_columns(columns, operator)
    luck = rng.random()
    right = total + operand if operator == "+" else total - operand
    if luck < habits.skip_right:
        return "", right
    if luck < habits.skip_right + habits.skip_near:
        return "", max(0, right + rng.choice((-10, -2, -1, 1, 2, 10)))
    return "", read_columns(work_columns(total, operator, operand, forget_carry=True), operator)


def work_columns(total: int, operator: str, operand: int, forget_carry: bool) -> list[Column]:
    """The columns of `total` plus or minus `operand`, ones first; `total` is not below `operand` when subtracting."""
    width = max(len(str(total)), len(str(operand)))
    columns: list[Column] = []
    carry = False
    for place in range(width):
        upper, lower = (number // 10**place % 10 for number in (total, operand))
        column = (add_digits if operator == "+" else subtract_digits)(upper, lower, carry)
        columns.append(column)
        carry = column.carries and not forget_carry
    return columns


def add_digits(upper: int, lower: int, carry: bool) -> Column:
    result = upper + lower + carry
    return Column(f"{upper}+{lower}{'+1' if carry else ''}={result}", result % 10, result > 9)


def subtract_digits(upper: int, lower: int, borrow: bool) -> Column:
    borrows = upper < lower + borrow
    lifted = upper + 10 * borrows
    result = lifted - lower - borrow
    return Column(f"{lifted}-{lower}{'-1' if borrow else ''}={result}", result, borrows)


def read_columns(columns: list[Column], operator: str) -> int:
    """The number that the columns spell; the carry of the last one leads a sum."""
    value = sum(column.digit * 10**place for place, column in enumerate(columns))
    leading = operator == "+" and columns[-1].carries
    return value + leading * 10 ** len(columns)


def make_guess(answer: int, habits: Habits, rng: random.Random) -> int:
    if rng.random() < habits.guess_right:
        return answer
    return max(0, answer + rng.choice((-1, 1)) * rng.randint(1, 20))


def split_expression(expression: str) -> tuple[int, list[tuple[str, int]]]:
    """`47+38-12` as 47 and [("+", 38), ("-", 12)]."""
    first, *steps = re.findall(r"[+-]?\d+", expression)
    return int(first), [(step[0], int(step[1:])) for step in steps]


def evaluate(expression: str) -> int:
    first, steps = split_expression(expression)
    return first + sum(operand if operator == "+" else -operand for operator, operand in steps)
