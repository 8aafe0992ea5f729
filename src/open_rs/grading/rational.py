r"""Owns exact arithmetic on answers: the value of a normalised formula as a fraction, where it has one.

Sizes are bounded before anything is computed, so that `10^{10^{10}}` costs nothing.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from open_rs.grading.expression import TooLargeError, UnreadableError, evaluate, tokenise

MAX_BITS = 1 << 21  # of a numerator or denominator; 2^{1000000}-1 still compares exactly
MAX_FACTORIAL = 5000
_MAX_DIGITS = 4000  # Python refuses to read longer integers from text
_MAX_ROOT_BITS = 900  # what a float can bracket
_PLAIN = re.compile(r"[-+]?\d{1,18}")


def rational(text: str) -> Fraction | None:
    r"""The exact value of a normalised formula, or None where it isn't a rational number in plain arithmetic.

    Raises `TooLargeError` where the value would pass 2^21 bits. `rational("\\frac{1}{2}+3") == Fraction(7, 2)`.
    """
    if _PLAIN.fullmatch(text):
        return Fraction(int(text))
    tokens = tokenise(text)
    return None if tokens is None else evaluate(tokens, _EXACT)


class _Exact:
    """Fractions; what has no fraction is unreadable."""

    def number(self, digits: str) -> Fraction:
        if len(digits) > _MAX_DIGITS:
            raise TooLargeError
        return Fraction(digits[:-1] if digits.endswith(".") else digits)

    def symbol(self, name: str) -> Fraction:
        raise UnreadableError(name)

    def add(self, left: Fraction, right: Fraction) -> Fraction:
        return _checked(left + right)

    def multiply(self, left: Fraction, right: Fraction) -> Fraction:
        return _checked(left * right)

    def divide(self, left: Fraction, right: Fraction) -> Fraction:
        return _checked(left / right)

    def negate(self, value: Fraction) -> Fraction:
        return -value

    def power(self, base: Fraction, exponent: Fraction) -> Fraction:
        if exponent.denominator != 1:
            if exponent.denominator > 100:
                raise UnreadableError
            return self.power(self.root(base, exponent.denominator), Fraction(exponent.numerator))
        if base == 0 and exponent <= 0:
            raise UnreadableError
        if abs(base) == 1:
            return base if exponent % 2 else Fraction(1)
        if abs(exponent) * _bits(base) > MAX_BITS:
            raise TooLargeError
        return base ** int(exponent)

    def root(self, value: Fraction, degree: int) -> Fraction:
        if value < 0 and degree % 2:
            return -self.root(-value, degree)
        if value < 0 or _bits(value) > _MAX_ROOT_BITS:
            raise UnreadableError
        return Fraction(_integer_root(value.numerator, degree), _integer_root(value.denominator, degree))

    def factorial(self, value: Fraction) -> Fraction:
        if value.denominator != 1 or value < 0:
            raise UnreadableError
        if value > MAX_FACTORIAL:
            raise TooLargeError
        return Fraction(math.factorial(int(value)))

    def binomial(self, top: Fraction, bottom: Fraction) -> Fraction:
        if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top:
            raise UnreadableError
        if top > MAX_FACTORIAL:
            raise TooLargeError
        return Fraction(math.comb(int(top), int(bottom)))

    def apply(self, function: str, value: Fraction) -> Fraction:
        raise UnreadableError(function)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _checked(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise TooLargeError
    return value


def _integer_root(value: int, degree: int) -> int:
    guess = math.isqrt(value) if degree == 2 else round(value ** (1 / degree))
    root = next((near for near in (guess - 1, guess, guess + 1) if near >= 0 and near**degree == value), None)
    if root is None:
        raise UnreadableError
    return root


_EXACT = _Exact()
