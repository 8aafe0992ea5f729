r"""Owns the one place that talks to Math-Verify; it runs in worker processes only and may hang or blow up there.

Math-Verify parses. Formulas and equations are then compared by their values (`values.py`); `verify`, always gold first,
decides the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, Expr, Float, I, MatrixBase, Symbol, nan, oo, real_root, zoo

from open_rs.grading.compare import Undecided, equal, exact_leaf
from open_rs.grading.expression import TooLargeError
from open_rs.grading.values import precise, same_solutions, same_values
from open_rs.grading.variables import spell_variables

logging.getLogger("math_verify").setLevel(logging.ERROR)

_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 30
_BITS = 100  # as many


class GoldError(Exception):
    """The gold can't be parsed, so that nobody can be scored against it."""


def warm_up() -> None:
    """Pay for the parser's tables before the first question, whose deadline they would eat."""
    _parsed(r"\lfloor\frac{x+1}{2}\rfloor^{2}")


class _Parsed:
    """A sympy expression as `values.py` wants it: variables by name, values as `mpc`."""

    def __init__(self, expression: Any) -> None:
        self._expression = expression
        self._by_name: dict[str, Symbol] = {str(symbol): symbol for symbol in expression.free_symbols}

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(self._by_name)

    def at(self, point: Mapping[str, Any]) -> Any | None:
        """The value in 30 digits, or None where the expression has no finite one."""
        values = {self._by_name[name]: _as_sympy(value) for name, value in point.items() if name in self._by_name}
        try:
            placed = self._expression.subs(values).doit()
            number = placed.evalf(_DIGITS)
            if not placed.has(I) and number.as_real_imag()[1] != 0:
                number = real_root(placed).evalf(_DIGITS)
            if number.has(nan, zoo, oo, -oo) or not number.is_number:
                return None
            return _as_mpmath(number)
        except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError):
            return None


def _as_mpmath(number: Any) -> Any:
    return precise().mpc(*(part._to_mpmath(_BITS) for part in number.as_real_imag()))


def _as_sympy(value: Any) -> Any:
    real = Float(value.real, _DIGITS)
    return real if value.imag == 0 else real + I * Float(value.imag, _DIGITS)


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
        same = same_values(_Parsed(gold_parsed), _Parsed(answer_parsed), relative_tolerance)
        if same is not None:
            return same
    return _verify(gold_parsed, answer_parsed)


def _equations_equal(gold: str, answer: str) -> bool:
    """Two equations are one if they have the same solutions; Math-Verify solves what `same_solutions` can't."""
    gold_parsed, answer_parsed = _parsed_gold(gold), _parsed(answer)
    if answer_parsed is None or _is_nothing(answer_parsed) or not getattr(answer_parsed, "free_symbols", True):
        return False
    if isinstance(gold_parsed, Eq) and isinstance(answer_parsed, Eq):
        same = same_solutions(_difference(gold_parsed), _difference(answer_parsed))
        if same is not None:
            return same
    return _verify(gold_parsed, answer_parsed)


def _difference(equation: Any) -> _Parsed:
    return _Parsed(equation.lhs - equation.rhs)


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


def _is_nothing(value: Any) -> bool:
    return isinstance(value, Basic) and value.has(nan, zoo)
