r"""Owns the cheap proof that two formulas differ: their values at two points, in floats.

Most wrong answers are settled here in microseconds. Agreement proves nothing; it sends the pair to a worker.
"""

from __future__ import annotations

import cmath
import math
import zlib
from functools import lru_cache

from open_rs.grading.expression import TooLargeError, UnreadableError, evaluate, tokenise
from open_rs.grading.variables import spell_variables

_NUM_POINTS = 2
_CLEARLY = 1e-6  # relative difference that no rounding explains
_MAX_CANCELLATION = 1e-5  # a difference of two larger numbers keeps too few digits below this share of them
_HUGE = 1e100


def clearly_differ(left: str, right: str, slack: float = 0.0) -> bool:
    """Whether two normalised formulas certainly have different values; `slack` is a relative tolerance on top."""
    for point in range(_NUM_POINTS):
        first, second = approximate(left, point), approximate(right, point)
        if first is None or second is None:
            return False
        if abs(first - second) > (_CLEARLY + slack) * 2 * max(abs(first), abs(second), 1e-100):
            return True
    return False


@lru_cache(maxsize=1 << 14)
def approximate(text: str, point: int) -> complex | None:
    """The value of a normalised formula at one of a few fixed points, or None where floats can't give it."""
    tokens = tokenise(spell_variables(text))
    if tokens is None:
        return None
    try:
        value = evaluate(tokens, _POINTS[point])
    except (TooLargeError, RecursionError):
        return None
    return value if value is not None and cmath.isfinite(value) and abs(value) < _HUGE else None


class _Floats:
    """Complex floats; each variable has a fixed positive value that depends on its name and the point."""

    def __init__(self, point: int) -> None:
        self._point = point

    def number(self, digits: str) -> complex:
        if len(digits) > 100:
            raise TooLargeError
        return complex(float(digits))

    def symbol(self, name: str) -> complex:
        if name.startswith("v_"):
            return 0.3 + 2.7 * zlib.crc32(f"{self._point}{name}".encode()) / 0xFFFFFFFF
        if name not in _CONSTANTS:
            raise UnreadableError(name)
        return _CONSTANTS[name]

    def add(self, left: complex, right: complex) -> complex:
        total = left + right
        if abs(total) < _MAX_CANCELLATION * max(abs(left), abs(right)):
            raise UnreadableError
        return total

    def multiply(self, left: complex, right: complex) -> complex:
        return left * right

    def divide(self, left: complex, right: complex) -> complex:
        return left / right

    def negate(self, value: complex) -> complex:
        return -value

    def power(self, base: complex, exponent: complex) -> complex:
        if base.imag == 0 and base.real < 0 and not (exponent.imag == 0 and exponent.real.is_integer()):
            raise UnreadableError  # real and principal roots differ
        return base**exponent

    def root(self, value: complex, degree: int) -> complex:
        if value.imag == 0 and value.real < 0:
            if degree == 2:
                return 1j * math.sqrt(-value.real)
            raise UnreadableError
        return value ** (1 / degree)

    def factorial(self, value: complex) -> complex:
        if value.imag != 0 or not value.real.is_integer() or not 0 <= value.real <= 170:
            raise UnreadableError
        return complex(math.factorial(int(value.real)))

    def binomial(self, top: complex, bottom: complex) -> complex:
        return self.factorial(top) / (self.factorial(bottom) * self.factorial(top - bottom))

    def apply(self, function: str, value: complex) -> complex:
        known = _FUNCTIONS.get(function)
        if known is None:
            raise UnreadableError(function)
        return known(value)


_CONSTANTS = {"\\pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_FUNCTIONS = {
    "\\sin": cmath.sin,
    "\\cos": cmath.cos,
    "\\tan": cmath.tan,
    "\\cot": lambda value: 1 / cmath.tan(value),
    "\\sec": lambda value: 1 / cmath.cos(value),
    "\\csc": lambda value: 1 / cmath.sin(value),
    "\\arctan": cmath.atan,
    "\\sinh": cmath.sinh,
    "\\cosh": cmath.cosh,
    "\\tanh": cmath.tanh,
    "\\ln": cmath.log,
    "\\log": cmath.log10,
    "\\exp": cmath.exp,
}
_POINTS = tuple(_Floats(point) for point in range(_NUM_POINTS))
