r"""Owns the comparison of formulas and equations by value, at fixed random points where they have variables.

It is faster than simplification, cannot be led astray by it, and its cost is bounded by the size of the formula.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

DIGITS = 40
_CLOSE = 1e-18  # relative; different closed forms of one number agree far beyond this in 30 digits or more
_ZERO = 1e-12  # of an equation's difference, relative to its value elsewhere
_NOISE = 1e-30  # what is left of larger terms that cancel
_NUM_POINTS = 4  # all positive, and as many of mixed sign
_MIN_POINTS = 2

Point = dict[str, Any]


class Valued(Protocol):
    """Something with variables that has a complex value at a point, or None there."""

    @property
    def symbols(self) -> frozenset[str]: ...

    def at(self, point: Mapping[str, Any]) -> Any | None: ...


@lru_cache(maxsize=1)
def precise() -> Any:
    """The mpmath context of every value here. It is imported when the first pair of formulas survives the floats."""
    from mpmath import MPContext

    context = MPContext()
    context.dps = DIGITS
    return context


def same_values(gold: Valued, answer: Valued, relative_tolerance: float | None) -> bool | None:
    """Whether two formulas take the same values; None where too few points can be evaluated.

    Where a variable is negative only real values count: conventions for roots and logarithms differ there.
    """
    symbols = sorted(gold.symbols | answer.symbols)
    if not symbols:
        return _close(gold.at({}), answer.at({}), relative_tolerance)
    agreed = 0
    for point, positive in _points(symbols):
        gold_value, answer_value = gold.at(point), answer.at(point)
        if gold_value is None or answer_value is None:
            continue
        if not positive and not (gold_value.imag == 0 == answer_value.imag):
            continue
        if not _close(gold_value, answer_value, relative_tolerance):
            return False
        agreed += positive
    return True if agreed >= _MIN_POINTS else None


def same_solutions(gold: Valued, answer: Valued) -> bool | None:
    """Whether `gold == 0` and `answer == 0` have the same solutions; None where that can't be seen.

    Solves each side for a variable in which it is linear or quadratic, and asks whether the other vanishes there.
    """
    symbols = sorted(gold.symbols | answer.symbols)
    if not gold.symbols or not answer.symbols or any(_vanishes_everywhere(side, symbols) for side in (gold, answer)):
        return False
    forward = _vanishes_on(gold, answer, symbols)
    if forward is False:
        return False
    backward = _vanishes_on(answer, gold, symbols)
    if backward is False:
        return False
    return True if forward and backward else None


def _vanishes_on(solved: Valued, other: Valued, symbols: list[str]) -> bool | None:
    """Whether `other` is 0 wherever `solved` is, at the solutions that can be found."""
    found = 0
    for point, positive in _points(symbols):
        elsewhere = other.at(point) if positive else None
        if elsewhere is None:
            continue
        for solution in _solutions(solved, point):
            there = other.at(solution)
            if there is None:
                continue
            if abs(there) > _ZERO * max(abs(elsewhere), 1e-6):
                return False
            found += 1
    return True if found >= _MIN_POINTS else None


def _solutions(equation: Valued, point: Point) -> list[Point]:
    """`point` with one variable changed so that the equation holds, for each in which it is linear or quadratic."""
    found: list[Point] = []
    for symbol in sorted(equation.symbols):
        origin = point[symbol] ** 0 * 17 / 16  # no round number, at which terms often cancel
        samples = [equation.at({**point, symbol: origin + at}) for at in range(4)]
        if not any(sample is None for sample in samples):
            found += [{**point, symbol: origin + root} for root in _roots(*samples)]
    return found


def _roots(at_0: Any, at_1: Any, at_2: Any, at_3: Any) -> list[Any]:
    """Zeros of the line or parabola through the values at 0, 1 and 2, if the value at 3 lies on it too."""
    second = (at_2 - 2 * at_1 + at_0) / 2
    first = at_1 - at_0 - second
    size = max(abs(value) for value in (at_0, at_1, at_2, at_3))
    if abs(at_0 + 3 * first + 9 * second - at_3) > _ZERO * size:
        return []
    if abs(second) <= _ZERO * size:
        return [-at_0 / first] if abs(first) > _ZERO * size else []
    root = (first * first - 4 * second * at_0) ** 0.5
    return [(sign * root - first) / (2 * second) for sign in (1, -1)]


def _vanishes_everywhere(side: Valued, symbols: list[str]) -> bool:
    values: Iterable[Any] = (side.at(point) for point, _ in _points(symbols))
    return all(value is not None and abs(value) < _ZERO for value in values)


def _points(symbols: list[str]) -> list[tuple[Point, bool]]:
    """(values of the symbols, whether all are positive): the same for every call, so that verdicts repeat."""
    noise, number = random.Random(20250316), precise().mpc
    points = []
    for index in range(2 * _NUM_POINTS):
        positive = index < _NUM_POINTS
        values = (number(noise.randint(300, 9000)) / 1024 * (1 if positive else noise.choice((1, -1))) for _ in symbols)
        points.append((dict(zip(symbols, values, strict=True)), positive))
    return points


def _close(gold: Any | None, answer: Any | None, relative_tolerance: float | None) -> bool | None:
    if gold is None or answer is None:
        return None
    if min(abs(gold), abs(answer)) == 0:
        return bool(max(abs(gold), abs(answer)) < 1e-20)
    if max(abs(gold), abs(answer)) < _NOISE:
        return None
    if relative_tolerance is not None:
        return bool(abs(gold - answer) <= relative_tolerance * abs(gold))
    return bool(abs(gold - answer) <= _CLOSE * max(abs(gold), abs(answer)))
