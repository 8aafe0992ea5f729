r"""Owns what is refused before symbolic work: no final answer needs it, and a symbolic engine drowns in it."""

from __future__ import annotations

import re

MAX_LENGTH = 1000  # characters of a normalised answer
MAX_DEPTH = 16  # nested braces and brackets
MAX_DIGIT_RUN = 200
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 5_000
MAX_TERMS = 150  # additions, products and powers

_DIGITS = re.compile(r"\d+")
_TOWER = re.compile(r"\^\{[^{}]*\^\{[^{}]*\^|\^\w\^|\^\{\d+\^\{?\d")
_BIG_EXPONENT = re.compile(r"\^\{?-?(\d{5,})")
_FACTORIAL = re.compile(r"(\d{4,}|[)}!]|[a-zA-Z])\s*!")
_CHAINED_FACTORIAL = re.compile(r"!\s*[)}]*\s*!")
_BINOMIAL = re.compile(r"\\binom\{(\d{4,})\}")
_SPECIAL = re.compile(r"\\(?:Gamma|zeta)\{?\(?\{?\d{3,}")
_UNEVALUATED = re.compile(r"\\(?:sum|prod|int|iint|iiint|oint|lim|bigcup|coprod)(?![a-zA-Z])")
_OPERATION = re.compile(r"[-+*/^=,]|\\cdot|\\frac|\\sqrt|_")


def refuse(answer: str, gold: str) -> str | None:
    """The reason why a normalised answer is not looked at any further, or None.

    An unevaluated sum, product, integral or limit restates the question; it counts only where the gold has one too.
    """
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(gold):
        return "unevaluated"
    return too_large(answer)


def too_large(text: str) -> str | None:
    """Which static limit a normalised expression breaks, or None."""
    if len(text) > MAX_LENGTH:
        return "too_long"
    if _nesting(text) > MAX_DEPTH:
        return "too_deep"
    if any(len(run) > MAX_DIGIT_RUN for run in _DIGITS.findall(text)):
        return "too_many_digits"
    if _TOWER.search(text) or any(int(run) > MAX_EXPONENT for run in _BIG_EXPONENT.findall(text)):
        return "too_large_power"
    if _CHAINED_FACTORIAL.search(text) or _has_large_factorial(text):
        return "too_large_factorial"
    if any(int(run) > MAX_FACTORIAL for run in _BINOMIAL.findall(text)) or _SPECIAL.search(text):
        return "too_large_factorial"
    return "too_many_terms" if len(_OPERATION.findall(text)) > MAX_TERMS else None


def _has_large_factorial(text: str) -> bool:
    return any(operand.isdigit() and int(operand) > MAX_FACTORIAL for operand in _FACTORIAL.findall(text))


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
