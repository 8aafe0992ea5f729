r"""Owns the one place that talks to Math-Verify; it runs in worker processes only and may hang or blow up there."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, I, MatrixBase, N, S, Symbol, nan, zoo

from open_rs.grading.compare import Undecided, equal, exact_leaf
from open_rs.grading.rational import TooLargeError

logging.getLogger("math_verify").setLevel(logging.ERROR)

_CONFIG = (LatexExtractionConfig(boxed_match_priority=0),)
_DIGITS = 30  # working precision of numeric comparisons
_CLOSE = 1e-18  # relative; two different closed forms of one number agree far beyond this at 30 digits


class GoldError(Exception):
    """The gold can't be parsed, so that nobody can be scored against it."""


def symbolic_equal(gold: str, answer: str, relative_tolerance: float | None) -> bool:
    """Whether a normalised answer equals a normalised gold, by structure and then by Math-Verify.

    Raises `GoldError` where the gold can't be parsed.
    """
    try:
        return equal(gold, answer, _leaf_equal, relative_tolerance)
    except Undecided:
        return _verified(gold, answer)


def _leaf_equal(gold: str, answer: str, relative_tolerance: float | None) -> bool:
    try:
        return exact_leaf(gold, answer, relative_tolerance)
    except (Undecided, TooLargeError):
        pass
    gold_parsed, answer_parsed = _parsed_gold(gold), _parsed(answer)
    if answer_parsed is None or _is_nothing(answer_parsed):
        return False
    gold_number, answer_number = _number(gold_parsed), _number(answer_parsed)
    if gold_number is not None and answer_number is not None:
        return _numbers_close(gold_number, answer_number, relative_tolerance)
    if (gold_number is None) != (answer_number is None) and not _is_set(gold_parsed, answer_parsed):
        return False
    return _verify(gold_parsed, answer_parsed)


def _verified(gold: str, answer: str) -> bool:
    gold_parsed, answer_parsed = _parsed_gold(gold), _parsed(answer)
    if answer_parsed is None or _is_nothing(answer_parsed) or _is_trivial(answer_parsed):
        return False
    return _verify(gold_parsed, answer_parsed)


def _verify(gold: Any, answer: Any) -> bool:
    return bool(verify(gold, answer, timeout_seconds=None))  # gold first: verify isn't symmetric


@lru_cache(maxsize=4096)
def _parsed_gold(gold: str) -> Any:
    parsed = _parsed(gold)
    if parsed is None:
        raise GoldError(gold)
    return parsed


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any | None:
    """One sympy object, or None. The text is wrapped in a box because Math-Verify corrupts bare expressions."""
    found = parse(
        rf"\boxed{{{_for_math_verify(text)}}}",
        extraction_config=_CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,  # type: ignore[arg-type]
    )
    return found[0] if found and isinstance(found[0], Basic | MatrixBase) else None


def _for_math_verify(text: str) -> str:
    text = re.sub(r"(?<![a-zA-Z\\])\\exp\{", r"e^{", text)
    return text.replace("%", r"\%")


def _number(value: Any) -> Any | None:
    """A complex number in 30 digits, or None for anything that isn't one."""
    if not isinstance(value, Basic) or value.free_symbols or not getattr(value, "is_Atom", False) and not value.args:
        return None
    try:
        number = N(value.doit(), _DIGITS)
    except (TypeError, ValueError, AttributeError, NotImplementedError):
        return None
    real_imaginary = getattr(number, "as_real_imag", None)
    if real_imaginary is None:
        return None
    real, imaginary = number.as_real_imag()
    return (real, imaginary) if real.is_Float or real.is_Rational else None


def _numbers_close(gold: Any, answer: Any, relative_tolerance: float | None) -> bool:
    gold_value, answer_value = gold[0] + I * gold[1], answer[0] + I * answer[1]
    difference = abs(N(gold_value - answer_value, _DIGITS))
    scale = abs(gold_value)
    return bool(difference <= (relative_tolerance or _CLOSE) * (scale if scale > 1e-25 else S.One))


def _is_nothing(value: Any) -> bool:
    return isinstance(value, Basic) and value.has(nan, zoo)


def _is_trivial(value: Any) -> bool:
    """`0=0` says nothing, though it is true."""
    return isinstance(value, Eq) and not value.free_symbols or value in (S.true, S.false)


def _is_set(*values: Any) -> bool:
    return any(not getattr(value, "is_number", False) and not isinstance(value, Symbol) and not getattr(value, "is_commutative", True) for value in values)
