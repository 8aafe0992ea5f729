r"""Owns the one place that talks to Math-Verify; it runs in worker processes only and may hang or blow up there.

Math-Verify parses. Two formulas are then compared by their values in 30 digits, at random points where they have variables;
`verify`, always gold first, decides the rest.
"""

from __future__ import annotations

import logging
import random
import re
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, I, MatrixBase, Rational, S, Symbol, nan, oo, real_root, zoo

from open_rs.grading.compare import Undecided, equal, exact_leaf
from open_rs.grading.expression import TooLargeError
from open_rs.grading.variables import spell_variables

logging.getLogger("math_verify").setLevel(logging.ERROR)

_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 30  # working precision of numeric comparisons
_CLOSE = 1e-18  # relative; different closed forms of one number agree far beyond this in 30 digits
_NUM_POINTS = 4  # positive points, and as many of mixed sign
_MIN_POINTS = 2


class GoldError(Exception):
    """The gold can't be parsed, so that nobody can be scored against it."""


def symbolic_equal(gold: str, answer: str, relative_tolerance: float | None, shortcut: bool = True) -> bool:
    """Whether a normalised answer equals a normalised gold, by structure and then by Math-Verify.

    Raises `GoldError` where the gold can't be parsed.
    """
    try:
        return equal(gold, answer, _leaf_equal, relative_tolerance, shortcut=shortcut)
    except Undecided:
        return _equations_equal(gold, answer)


def _leaf_equal(gold: str, answer: str, relative_tolerance: float | None) -> bool:
    try:
        return exact_leaf(gold, answer, relative_tolerance)
    except (Undecided, TooLargeError):
        pass
    gold_parsed, answer_parsed = _parsed_gold(gold), _parsed(answer)
    if answer_parsed is None or _is_nothing(answer_parsed):
        return False
    if isinstance(gold_parsed, Expr) and isinstance(answer_parsed, Expr):
        same = _same_values(gold_parsed, answer_parsed, relative_tolerance)
        if same is not None:
            return same
    return _verify(gold_parsed, answer_parsed)


def _equations_equal(gold: str, answer: str) -> bool:
    """Two equations are one if their differences of sides are proportional; else Math-Verify solves them."""
    gold_parsed, answer_parsed = _parsed_gold(gold), _parsed(answer)
    if answer_parsed is None or _is_nothing(answer_parsed) or not getattr(answer_parsed, "free_symbols", True):
        return False
    if isinstance(gold_parsed, Eq) and isinstance(answer_parsed, Eq):
        same = _proportional(_difference(gold_parsed), _difference(answer_parsed))
        if same:
            return True
    return _verify(gold_parsed, answer_parsed)


def _difference(equation: Any) -> Any:
    return equation.lhs - equation.rhs


def _verify(gold: Any, answer: Any) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None))  # gold first: verify isn't symmetric


def _parsed_gold(gold: str) -> Any:
    parsed = _parsed(gold)
    if parsed is None:
        raise GoldError(gold)
    return parsed


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Any | None:
    """One sympy object, or None. The text is wrapped in a box because Math-Verify corrupts bare expressions."""
    found = parse(
        rf"\boxed{{{spell_variables(text).replace('%', chr(92) + '%')}}}",
        extraction_config=_CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,  # type: ignore[arg-type]
    )
    value = found[0] if found else None
    if isinstance(value, Expr):
        return value.xreplace({symbol: I for symbol in value.free_symbols if str(symbol) == "i"})
    return value if isinstance(value, Basic | MatrixBase) else None


def _same_values(gold: Any, answer: Any, relative_tolerance: float | None) -> bool | None:
    """Whether two expressions take the same values; None where too few points can be evaluated."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if not symbols:
        return _close(_value(gold, {}), _value(answer, {}), relative_tolerance)
    agreed = 0
    for point, positive in _points(symbols):
        gold_value, answer_value = _value(gold, point), _value(answer, point)
        if gold_value is None or answer_value is None:
            continue
        if not positive and not (gold_value[1] == 0 == answer_value[1]):
            continue  # roots and logarithms of negative numbers: conventions differ
        if not _close(gold_value, answer_value, relative_tolerance):
            return False
        agreed += 1
    return True if agreed >= _MIN_POINTS else None


def _proportional(gold: Any, answer: Any) -> bool | None:
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    ratio = None
    agreed = 0
    for point, _ in _points(symbols):
        gold_value, answer_value = _value(gold, point), _value(answer, point)
        if gold_value is None or answer_value is None or answer_value == (0, 0):
            continue
        here = (gold_value[0] + I * gold_value[1]) / (answer_value[0] + I * answer_value[1])
        here = here.evalf(_DIGITS).as_real_imag()
        if ratio is not None and not _close(ratio, here, None):
            return False
        ratio = here
        agreed += 1
    return True if agreed > _MIN_POINTS else None


def _points(symbols: list[Symbol]) -> list[tuple[dict[Symbol, Any], bool]]:
    """(values of the symbols, whether all are positive): the same for every call, so that verdicts repeat."""
    noise = random.Random(20250316)
    points = []
    for index in range(2 * _NUM_POINTS):
        positive = index < _NUM_POINTS
        values = (Rational(noise.randint(300, 9000), 997) * (1 if positive else noise.choice((1, -1))) for _ in symbols)
        points.append((dict(zip(symbols, values, strict=True)), positive))
    return points


def _value(expression: Any, point: dict[Symbol, Any]) -> tuple[Any, Any] | None:
    """(real, imaginary) part in 30 digits, or None where the expression has no finite value there."""
    try:
        placed = expression.subs(point).doit() if point else expression.doit()
        number = placed.evalf(_DIGITS)
        real, imaginary = number.as_real_imag()
        if imaginary != 0 and not expression.has(I):
            number = real_root(placed).evalf(_DIGITS)
            real, imaginary = number.as_real_imag()
    except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError):
        return None
    if not (real.is_number and imaginary.is_number) or number.has(nan, zoo, oo, -oo) or not _finite(real, imaginary):
        return None
    return real, imaginary


def _finite(*parts: Any) -> bool:
    return all(part.is_Float or part.is_Rational for part in parts)


def _close(gold: Any, answer: Any, relative_tolerance: float | None) -> bool | None:
    if gold is None or answer is None:
        return None
    difference = _magnitude(gold[0] - answer[0], gold[1] - answer[1])
    size = max(_magnitude(*gold), _magnitude(*answer))
    smaller = min(_magnitude(*gold), _magnitude(*answer))
    if smaller == 0:
        return bool(size < 1e-20)
    return bool(difference <= (relative_tolerance or _CLOSE) * (_magnitude(*gold) if relative_tolerance else size))


def _magnitude(real: Any, imaginary: Any) -> Any:
    return (real * real + imaginary * imaginary) ** S.Half


def _is_nothing(value: Any) -> bool:
    return isinstance(value, Basic) and value.has(nan, zoo)
