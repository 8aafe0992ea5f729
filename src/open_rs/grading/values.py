r"""Owns the comparison of sympy formulas by value: 30 digits, at fixed random points where they have variables.

It is faster than simplification, cannot be led astray by it, and its cost is bounded by the size of the formula. It runs in
worker processes only.
"""

from __future__ import annotations

import random
from typing import Any

from sympy import I, Rational, Symbol, nan, oo, real_root, zoo

_DIGITS = 30
_CLOSE = 1e-18  # relative; different closed forms of one number agree far beyond this in 30 digits
_ZERO = 1e-15  # of an equation's sides, relative to its value elsewhere
_NUM_POINTS = 4  # all positive, and as many of mixed sign
_MIN_POINTS = 2

Point = dict[Symbol, Any]
Number = tuple[Any, Any]  # real and imaginary part


def same_values(gold: Any, answer: Any, relative_tolerance: float | None) -> bool | None:
    """Whether two expressions take the same values; None where too few points can be evaluated.

    Where a variable is negative only real values count: conventions for roots and logarithms differ there.
    """
    symbols = _symbols(gold, answer)
    if not symbols:
        return _close(_value(gold, {}), _value(answer, {}), relative_tolerance)
    agreed = 0
    for point, positive in _points(symbols):
        gold_value, answer_value = _value(gold, point), _value(answer, point)
        if gold_value is None or answer_value is None:
            continue
        if not positive and not (gold_value[1] == 0 == answer_value[1]):
            continue
        if not _close(gold_value, answer_value, relative_tolerance):
            return False
        agreed += 1
    return True if agreed >= _MIN_POINTS else None


def same_solutions(gold: Any, answer: Any) -> bool | None:
    """Whether `gold == 0` and `answer == 0` have the same solutions; None where that can't be seen.

    Solves each side for a variable in which it is linear or quadratic, and asks whether the other vanishes there.
    """
    symbols = _symbols(gold, answer)
    if not symbols or any(_vanishes_everywhere(side, symbols) for side in (gold, answer)):
        return False
    forward, backward = _vanishes_on(gold, answer, symbols), _vanishes_on(answer, gold, symbols)
    if forward is False or backward is False:
        return False
    return True if forward and backward else None


def _vanishes_on(solved: Any, other: Any, symbols: list[Symbol]) -> bool | None:
    """Whether `other` is 0 wherever `solved` is, at the solutions that can be found."""
    found = 0
    for point, positive in _points(symbols):
        if not positive:
            continue
        elsewhere = _value(other, point)
        for solution in _solutions(solved, symbols, point):
            there = _value(other, solution)
            if there is None or elsewhere is None:
                continue
            if _size(there) > _ZERO * max(_size(elsewhere), 1e-6):
                return False
            found += 1
    return True if found >= _MIN_POINTS else None


def _solutions(expression: Any, symbols: list[Symbol], point: Point) -> list[Point]:
    """`point` with one variable changed so that the expression is 0; empty where no variable is linear or quadratic."""
    for symbol in sorted(expression.free_symbols, key=str):
        samples = [_complex(_value(expression, {**point, symbol: Rational(at)})) for at in range(4)]
        if any(sample is None for sample in samples):
            continue
        roots = _roots(*samples)
        if roots:
            return [{**point, symbol: root} for root in roots]
    return []


def _roots(at_0: Any, at_1: Any, at_2: Any, at_3: Any) -> list[Any]:
    """Zeros of the line or parabola through the values at 0, 1 and 2, if the value at 3 lies on it too."""
    second = (at_2 - 2 * at_1 + at_0) / 2
    first = at_1 - at_0 - second
    size = max(abs(value) for value in (at_0, at_1, at_2, at_3))
    if abs(at_0 + 3 * first + 9 * second - at_3) > _ZERO * size:
        return []
    if abs(second) <= _ZERO * size:
        return [-at_0 / first] if abs(first) > _ZERO * size else []
    root = ((first * first - 4 * second * at_0) ** Rational(1, 2)).evalf(_DIGITS)
    return [((sign * root - first) / (2 * second)).evalf(_DIGITS) for sign in (1, -1)]


def _vanishes_everywhere(expression: Any, symbols: list[Symbol]) -> bool:
    values = [_value(expression, point) for point, _ in _points(symbols)]
    return all(value is not None and _size(value) < _ZERO for value in values)


def _symbols(*expressions: Any) -> list[Symbol]:
    return sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)


def _points(symbols: list[Symbol]) -> list[tuple[Point, bool]]:
    """(values of the symbols, whether all are positive): the same for every call, so that verdicts repeat."""
    noise = random.Random(20250316)
    points = []
    for index in range(2 * _NUM_POINTS):
        positive = index < _NUM_POINTS
        values = (Rational(noise.randint(300, 9000), 997) * (1 if positive else noise.choice((1, -1))) for _ in symbols)
        points.append((dict(zip(symbols, values, strict=True)), positive))
    return points


def _value(expression: Any, point: Point) -> Number | None:
    """The value in 30 digits, or None where the expression has no finite one there."""
    try:
        placed = expression.subs(point).doit() if point else expression.doit()
        number = placed.evalf(_DIGITS)
        real, imaginary = number.as_real_imag()
        if imaginary != 0 and not placed.has(I):
            number = real_root(placed).evalf(_DIGITS)
            real, imaginary = number.as_real_imag()
    except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError):
        return None
    if number.has(nan, zoo, oo, -oo) or not all(part.is_Float or part.is_Rational for part in (real, imaginary)):
        return None
    return real, imaginary


def _complex(value: Number | None) -> Any | None:
    return None if value is None else value[0] + I * value[1]


def _close(gold: Number | None, answer: Number | None, relative_tolerance: float | None) -> bool | None:
    if gold is None or answer is None:
        return None
    sizes = _size(gold), _size(answer)
    if min(sizes) == 0:
        return bool(max(sizes) < 1e-20)
    difference = _size((gold[0] - answer[0], gold[1] - answer[1]))
    if relative_tolerance is not None:
        return bool(difference <= relative_tolerance * sizes[0])
    return bool(difference <= _CLOSE * max(sizes))


def _size(value: Number) -> Any:
    return (value[0] ** 2 + value[1] ** 2) ** Rational(1, 2)
