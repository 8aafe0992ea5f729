r"""Owns formulas as numbers: complex arithmetic for the grammar of `expression.py`, in floats and in 40 digits.

Floats prove in microseconds that two formulas differ; 40 digits, at several points, that they agree (`values.py`).
"""

from __future__ import annotations

import cmath
import math
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from open_rs.grading.expression import Token, TooLargeError, UnreadableError, evaluate, tokenise
from open_rs.grading.values import precise
from open_rs.grading.variables import spell_variables

MAX_TOKENS = 500
_MAX_EXPONENT = 1e5  # of e, in any power: nothing overflows and nothing is slow
_MAX_ARGUMENT = 1e6  # of a trigonometric function
_NUM_FLOAT_POINTS = 2
_CLEARLY = 1e-6  # relative difference that no rounding of floats explains


@dataclass(frozen=True, slots=True)
class Library:
    """One kind of complex numbers. `least_share`: a sum smaller than this share of its terms has lost its digits."""

    number: Callable[[str], Any]
    log: Callable[[Any], Any]
    constants: Mapping[str, Any]
    functions: Mapping[str, Callable[[Any], Any]]
    least_share: float


class Numbers:
    """The arithmetic of a library; variables take the values of a point. Unreadable where conventions differ."""

    def __init__(self, library: Library, point: Mapping[str, Any]) -> None:
        self._library = library
        self._point = point

    def number(self, digits: str) -> Any:
        if len(digits) > 100:
            raise TooLargeError
        return self._library.number(digits)

    def symbol(self, name: str) -> Any:
        value = self._point.get(name)
        if value is None:
            value = self._library.constants.get(name)
        if value is None:
            raise UnreadableError(name)
        return value

    def add(self, left: Any, right: Any) -> Any:
        total = left + right
        if abs(total) < self._library.least_share * abs(left):
            raise UnreadableError
        return total

    def multiply(self, left: Any, right: Any) -> Any:
        return left * right

    def divide(self, left: Any, right: Any) -> Any:
        return left / right

    def negate(self, value: Any) -> Any:
        return -value

    def power(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if exponent.imag == 0 and exponent.real > 0:
                return base
            raise UnreadableError
        whole = exponent.imag == 0 and exponent.real == int(exponent.real)
        if abs(exponent) * max(1, abs(self._library.log(base))) > _MAX_EXPONENT:
            raise TooLargeError
        if whole:
            return base ** int(exponent.real)
        if base.imag == 0 and base.real < 0:
            raise UnreadableError  # real and principal roots differ
        return self._library.functions["\\exp"](exponent * self._library.log(base))

    def root(self, value: Any, degree: int) -> Any:
        if value == 0:
            return value
        if value.imag == 0 and value.real < 0:
            positive = self.root(-value, degree)
            return -positive if degree % 2 else self._imaginary(positive, degree)
        return self._library.functions["\\exp"](self._library.log(value) / degree)

    def _imaginary(self, positive: Any, degree: int) -> Any:
        if degree != 2:
            raise UnreadableError
        return positive * self._library.constants["i"]

    def factorial(self, value: Any) -> Any:
        if value.imag != 0 or value.real != int(value.real) or not 0 <= value.real <= 150:
            raise UnreadableError
        return self._library.number(str(math.factorial(int(value.real))))

    def binomial(self, top: Any, bottom: Any) -> Any:
        return self.factorial(top) / (self.factorial(bottom) * self.factorial(top - bottom))

    def apply(self, function: str, value: Any) -> Any:
        known = self._library.functions.get(function)
        if known is None or abs(value) > _MAX_ARGUMENT:
            raise UnreadableError(function)
        return known(value)


@dataclass(frozen=True)
class Formula:
    """A formula that the grammar of `expression.py` can read. `at` never raises."""

    tokens: tuple[Token, ...]

    @property
    def symbols(self) -> frozenset[str]:
        """The names of its variables."""
        return frozenset(token for token, _ in self.tokens if token.startswith("v_"))

    def at(self, point: Mapping[str, Any]) -> Any | None:
        """The value in 40 digits, an `mpc`, or None where there is none."""
        library = _precise()
        with _LOCK:
            return _value(self.tokens, Numbers(library, point))


def read_formula(text: str) -> Formula | None:
    """A normalised formula, if the grammar knows all its characters and it isn't too long."""
    tokens = tokenise(spell_variables(text))
    return None if tokens is None or len(tokens) > MAX_TOKENS else Formula(tokens)


def clearly_differ(left: str, right: str, slack: float = 0.0) -> bool:
    """Whether two normalised formulas certainly have different values; `slack` is a relative tolerance on top."""
    for point in range(_NUM_FLOAT_POINTS):
        first, second = _float_value(left, point), _float_value(right, point)
        if first is None or second is None:
            return False
        if abs(first - second) > (_CLEARLY + 2 * slack) * max(abs(first), abs(second), 1e-100):
            return True
    return False


@lru_cache(maxsize=1 << 14)
def _float_value(text: str, point: int) -> complex | None:
    formula = read_formula(text)
    if formula is None:
        return None
    # any fixed positive value will do, as long as it depends on the name and the point
    values = {name: 0.3 + 2.7 * zlib.crc32(f"{point}{name}".encode()) / 0xFFFFFFFF for name in formula.symbols}
    value = _value(formula.tokens, Numbers(_FLOATS, {name: complex(value) for name, value in values.items()}))
    return value if value is not None and cmath.isfinite(value) and abs(value) < 1e100 else None


def _value(tokens: tuple[Token, ...], numbers: Numbers) -> Any | None:
    try:
        return evaluate(tokens, numbers)
    except (TooLargeError, RecursionError):
        return None


@lru_cache(maxsize=1)
def _precise() -> Library:
    context = precise()
    names = ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp"]
    functions = {f"\\{name}": getattr(context, name) for name in names}
    functions |= {"\\arcsin": context.asin, "\\arccos": context.acos, "\\arctan": context.atan}
    functions |= {"\\ln": context.log, "\\log": context.log10}
    constants = {"\\pi": context.mpc(context.pi), "e": context.mpc(context.e), "i": context.mpc(0, 1)}
    return Library(context.mpc, context.log, constants, functions, 0.0)


_LOCK = threading.Lock()  # an mpmath context changes its own precision while it computes
_FLOATS = Library(
    number=complex,
    log=cmath.log,
    constants={"\\pi": complex(math.pi), "e": complex(math.e), "i": 1j},
    functions={
        "\\sin": cmath.sin,
        "\\cos": cmath.cos,
        "\\tan": cmath.tan,
        "\\cot": lambda value: 1 / cmath.tan(value),
        "\\sec": lambda value: 1 / cmath.cos(value),
        "\\csc": lambda value: 1 / cmath.sin(value),
        "\\arcsin": cmath.asin,
        "\\arccos": cmath.acos,
        "\\arctan": cmath.atan,
        "\\sinh": cmath.sinh,
        "\\cosh": cmath.cosh,
        "\\tanh": cmath.tanh,
        "\\exp": cmath.exp,
        "\\ln": cmath.log,
        "\\log": cmath.log10,
    },
    least_share=1e-5,
)
