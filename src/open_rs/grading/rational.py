r"""Owns exact arithmetic on answers: the value of a normalised expression as a fraction, where it has one.

Reads `+ - * / ^ !`, `\frac`, `\binom`, roots of perfect powers, mixed numbers and scientific notation. Sizes are bounded
before anything is computed, so that `10^{10^{10}}` costs nothing.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

MAX_BITS = 1 << 21  # of a numerator or denominator; 2^{1000000}-1 still compares exactly
MAX_FACTORIAL = 5000
_MAX_DEPTH = 40
_MAX_DIGITS = 4000  # Python refuses to read longer integers from text
_PLAIN = re.compile(r"[-+]?\d{1,18}")
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<symbol>[-+*/^!(){}\[\]])",
)
_TIMES = {"*", "\\times", "\\cdot"}
_DIVIDE = {"/", "\\div"}


class TooLargeError(Exception):
    """The value exists and is too large to write down."""


class _NotRationalError(Exception):
    pass


def rational(text: str) -> Fraction | None:
    """The exact value of a normalised expression, or None where it isn't a rational number in plain arithmetic.

    Raises `TooLargeError` where the value would pass 2^21 bits. `rational("\\frac{1}{2}+3") == Fraction(7, 2)`.
    """
    if _PLAIN.fullmatch(text):
        return Fraction(int(text))
    tokens = _tokens(text)
    if tokens is None:
        return None
    try:
        parser = _Parser(tokens)
        value = parser.sum()
        parser.expect_end()
    except (_NotRationalError, ZeroDivisionError, RecursionError):
        return None
    return value


def _tokens(text: str) -> list[tuple[str, bool]] | None:
    """(token, whether a space precedes it), or None at the first character that isn't plain arithmetic."""
    tokens: list[tuple[str, bool]] = []
    position = 0
    while position < len(text):
        start = position
        while position < len(text) and text[position] == " ":
            position += 1
        if position == len(text):
            break
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        command = match["command"]
        if command and command not in _KNOWN_COMMANDS:
            return None
        tokens.append((match.group(), position > start))
        position = match.end()
    return tokens or None


class _Parser:
    """Recursive descent over the tokens; every method returns the value of what it consumed."""

    def __init__(self, tokens: list[tuple[str, bool]]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def expect_end(self) -> None:
        if self._position != len(self._tokens):
            raise _NotRationalError

    def sum(self) -> Fraction:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotRationalError
        value = self._product()
        while self._peek() in ("+", "-"):
            sign = self._take()
            term = self._product()
            value = _checked(value + term if sign == "+" else value - term)
        self._depth -= 1
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        while True:
            token = self._peek()
            if token in _TIMES:
                self._take()
                value = _checked(value * self._signed())
            elif token in _DIVIDE:
                self._take()
                value = _checked(value / self._signed())
            elif token in ("(", "\\sqrt", "\\binom", "\\frac"):
                value = _checked(value * self._power())  # implicit product; a mixed number is read in `_atom`
            else:
                return value

    def _signed(self) -> Fraction:
        if self._peek() in ("+", "-"):
            return self._signed_after(self._take())
        return self._power()

    def _signed_after(self, sign: str) -> Fraction:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _NotRationalError
        value = self._signed()
        self._depth -= 1
        return -value if sign == "-" else value

    def _power(self) -> Fraction:
        base = self._factorials(self._atom())
        if self._peek() != "^":
            return base
        self._take()
        exponent = self._group() if self._peek() == "{" else self._signed_digit()
        return self._factorials(_power(base, exponent))

    def _signed_digit(self) -> Fraction:
        """What `^` raises to without braces; `10^33` means 10^{33} in plain-text answers."""
        sign = self._take() if self._peek() in ("-", "+") else "+"
        value = self._atom()
        return -value if sign == "-" else value

    def _factorials(self, value: Fraction) -> Fraction:
        count = 0
        while self._peek() == "!":
            self._take()
            count += 1
        if count > 1:
            raise TooLargeError  # a double factorial or a factorial of a factorial: nobody's final answer
        return _factorial(value) if count else value

    def _atom(self) -> Fraction:
        token = self._take()
        if token == "(":
            value = self.sum()
            self._expect(")")
            return value
        if token == "{":
            self._position -= 1
            return self._group()
        if token in _FUNCTIONS:
            return _FUNCTIONS[token](self)
        return self._number(token)

    def _number(self, token: str) -> Fraction:
        value = _decimal(token)
        if "." in token:
            return value
        if self._peek() == "\\frac":
            return value + self._mixed_fraction()
        if self._next_are_spaced_fraction():
            numerator, _, denominator = (self._take() for _ in range(3))
            return value + _decimal(numerator) / _decimal(denominator)
        return value

    def _mixed_fraction(self) -> Fraction:
        r"""The fraction of `3\frac{1}{2}`; only plain integers make a mixed number."""
        self._take()
        start = self._position
        numerator, denominator = self._group(), self._group()
        plain = all(token.isdigit() or token in "{}" for token, _ in self._tokens[start : self._position])
        if not plain or not 0 < numerator < denominator:
            raise _NotRationalError
        return numerator / denominator

    def _next_are_spaced_fraction(self) -> bool:
        """Whether ` 1/2` follows, as in `3 1/2`."""
        ahead = self._tokens[self._position : self._position + 3]
        return (
            len(ahead) == 3 and ahead[0][1] and ahead[0][0].isdigit() and ahead[1][0] == "/" and ahead[2][0].isdigit()
        )

    def _group(self) -> Fraction:
        self._expect("{")
        value = self.sum()
        self._expect("}")
        return value

    def _fraction(self) -> Fraction:
        return _checked(self._group() / self._group())

    def _binomial(self) -> Fraction:
        top, bottom = self._group(), self._group()
        if top.denominator != 1 or bottom.denominator != 1 or bottom < 0 or top < bottom:
            raise _NotRationalError
        if top > MAX_FACTORIAL:
            raise TooLargeError
        return Fraction(math.comb(int(top), int(bottom)))

    def _root(self) -> Fraction:
        degree = Fraction(2)
        if self._peek() == "[":
            self._take()
            degree = self.sum()
            self._expect("]")
        if degree.denominator != 1 or not 2 <= degree <= 100:
            raise _NotRationalError
        return _exact_root(self._group(), int(degree))

    def _peek(self) -> str | None:
        return self._tokens[self._position][0] if self._position < len(self._tokens) else None

    def _take(self) -> str:
        if self._position >= len(self._tokens):
            raise _NotRationalError
        self._position += 1
        return self._tokens[self._position - 1][0]

    def _expect(self, symbol: str) -> None:
        if self._take() != symbol:
            raise _NotRationalError


def _decimal(token: str) -> Fraction:
    if len(token) > _MAX_DIGITS:
        raise TooLargeError
    try:
        return Fraction(token if token[-1] != "." else token[:-1])
    except ValueError:
        raise _NotRationalError from None


def _checked(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise TooLargeError
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        if abs(exponent.denominator) > 100:
            raise _NotRationalError
        return _power(_exact_root(base, exponent.denominator), Fraction(exponent.numerator))
    if base in (0, 1, -1):
        if base == 0 and exponent <= 0:
            raise _NotRationalError
        return base ** int(exponent % 2 + 2 if base == -1 else 1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > MAX_BITS:
        raise TooLargeError
    return base ** int(exponent)


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise _NotRationalError
    if value > MAX_FACTORIAL:
        raise TooLargeError
    return Fraction(math.factorial(int(value)))


def _exact_root(value: Fraction, degree: int) -> Fraction:
    if value < 0 and degree % 2:
        return -_exact_root(-value, degree)
    if value < 0 or max(value.numerator.bit_length(), value.denominator.bit_length()) > 1000:
        raise _NotRationalError
    return Fraction(_integer_root(value.numerator, degree), _integer_root(value.denominator, degree))


def _integer_root(value: int, degree: int) -> int:
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = round(value ** (1 / degree)) if value.bit_length() < 900 else 0
        root = next((near for near in (root - 1, root, root + 1) if near >= 0 and near**degree == value), -1)
    if root < 0 or root**degree != value:
        raise _NotRationalError
    return root


_FUNCTIONS = {"\\frac": _Parser._fraction, "\\binom": _Parser._binomial, "\\sqrt": _Parser._root}
_KNOWN_COMMANDS = {*_FUNCTIONS, "\\times", "\\cdot", "\\div"}
