r"""Owns the grammar of plain formulas, read once and computed by whatever arithmetic is given: fractions or floats.

`+ - * / ^ !`, `\frac`, `\binom`, roots, functions, implicit products, mixed numbers. What people read in two ways
(`1/2x`) is not read at all, and left to the symbolic parser.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

MAX_DEPTH = 40
Value = TypeVar("Value")

_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<variable>v_\{\w+\})|(?P<command>\\[a-zA-Z]+)|(?P<letter>[ei](?=v_\{|[^a-zA-Z_]|$))"
    r"|(?P<symbol>[-+*/^!(){}\[\]_])"
)
_TIMES = frozenset({"*", "\\cdot", "\\times"})
_DIVIDE = frozenset({"/", "\\div"})
_CLOSING = frozenset({")", "}", "]", "+", "-", "^", "!", "_", *_TIMES, *_DIVIDE})


class UnreadableError(Exception):
    """Not a plain formula, or not one of this arithmetic."""


class TooLargeError(Exception):
    """The value exists and is too large to write down."""


class Arithmetic(Protocol[Value]):
    """What a parser needs of numbers. Every method may raise `UnreadableError` or `TooLargeError`."""

    def number(self, digits: str) -> Value: ...
    def symbol(self, name: str) -> Value: ...
    def add(self, left: Value, right: Value) -> Value: ...
    def multiply(self, left: Value, right: Value) -> Value: ...
    def divide(self, left: Value, right: Value) -> Value: ...
    def negate(self, value: Value) -> Value: ...
    def power(self, base: Value, exponent: Value) -> Value: ...
    def root(self, value: Value, degree: int) -> Value: ...
    def factorial(self, value: Value) -> Value: ...
    def binomial(self, top: Value, bottom: Value) -> Value: ...
    def apply(self, function: str, value: Value) -> Value: ...


Token = tuple[str, bool]  # the token, and whether a space stands before it


@lru_cache(maxsize=1 << 14)
def tokenise(text: str) -> tuple[Token, ...] | None:
    """The tokens of a formula, or None at the first character that belongs to none."""
    tokens: list[Token] = []
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
        tokens.append((match.group(), position > start))
        position = match.end()
    return tuple(tokens) or None


def evaluate(tokens: tuple[Token, ...], arithmetic: Arithmetic[Value]) -> Value | None:
    """The value of a formula, or None where the arithmetic or the grammar can't read it. Raises `TooLargeError`."""
    parser = _Parser(tokens, arithmetic)
    try:
        value = parser.sum()
        parser.expect_end()
    except (UnreadableError, ZeroDivisionError, OverflowError, ValueError):
        return None
    return value


class _Parser(Generic[Value]):
    """Recursive descent; every method returns the value of what it consumed."""

    def __init__(self, tokens: tuple[Token, ...], arithmetic: Arithmetic[Value]) -> None:
        self._tokens = tokens
        self._arithmetic = arithmetic
        self._position = 0
        self._depth = 0

    def expect_end(self) -> None:
        if self._position != len(self._tokens):
            raise UnreadableError

    def sum(self) -> Value:
        self._enter()
        value = self._product()
        while (sign := self._peek()) in ("+", "-"):
            self._position += 1
            term = self._product()
            value = self._arithmetic.add(value, self._arithmetic.negate(term) if sign == "-" else term)
        self._depth -= 1
        return value

    def _product(self) -> Value:
        value = self._signed()
        divided = False
        while (token := self._peek()) is not None:
            if token in _TIMES:
                self._position += 1
                value = self._arithmetic.multiply(value, self._signed())
                divided = False
            elif token in _DIVIDE:
                self._position += 1
                value = self._arithmetic.divide(value, self._signed())
                divided = True
            elif token in _CLOSING:
                break
            elif divided or token[0].isdigit():
                raise UnreadableError  # `1/2x` and `x2` mean different things to different readers
            else:
                value = self._arithmetic.multiply(value, self._power())
        return value

    def _signed(self) -> Value:
        sign = self._peek()
        if sign not in ("+", "-"):
            return self._power()
        self._position += 1
        self._enter()
        value = self._signed()
        self._depth -= 1
        return self._arithmetic.negate(value) if sign == "-" else value

    def _power(self) -> Value:
        base = self._factorial(self._atom())
        if self._peek() != "^":
            return base
        self._position += 1
        value = self._arithmetic.power(base, self._exponent())
        if self._peek() in ("^", "!"):
            raise UnreadableError
        return value

    def _exponent(self) -> Value:
        if self._peek() == "{":
            return self._group()
        token = self._take()
        if token in ("+", "-"):
            value = self._simple(self._take())
            return self._arithmetic.negate(value) if token == "-" else value
        return self._simple(token)

    def _simple(self, token: str) -> Value:
        if token[0].isdigit():
            return self._arithmetic.number(token)
        if token in _CLOSING or token in "({[":
            raise UnreadableError
        return self._arithmetic.symbol(token)

    def _factorial(self, value: Value) -> Value:
        if self._peek() != "!":
            return value
        self._position += 1
        if self._peek() == "!":
            raise TooLargeError  # a double factorial, or a factorial of a factorial: nobody's final answer
        return self._arithmetic.factorial(value)

    def _atom(self) -> Value:
        token = self._take()
        if token == "(":
            value = self.sum()
            self._expect(")")
            return value
        if token == "[":
            value = self.sum()
            self._expect("]")
            return value
        if token == "{":
            self._position -= 1
            return self._group()
        if token[0].isdigit() or token[0] == ".":
            return self._number(token)
        reader = _READERS.get(token)
        if reader is not None:
            return reader(self)
        if token in _FUNCTIONS:
            return self._function(token)
        if token in _CLOSING:
            raise UnreadableError
        return self._arithmetic.symbol(token)

    def _number(self, token: str) -> Value:
        value = self._arithmetic.number(token)
        if "." in token:
            return value
        if self._peek() == "\\frac":
            return self._arithmetic.add(value, self._mixed_fraction())
        if self._spaced_fraction_follows():
            top, _, bottom = self._take(), self._take(), self._take()
            fraction = self._arithmetic.divide(self._arithmetic.number(top), self._arithmetic.number(bottom))
            return self._arithmetic.add(value, fraction)
        return value

    def _mixed_fraction(self) -> Value:
        r"""The fraction of `3\frac{1}{2}`: plain integers, the smaller one on top."""
        ahead = [token for token, _ in self._tokens[self._position + 1 : self._position + 7]]
        if len(ahead) < 6 or ahead[0::3] != ["{", "{"] or ahead[2::3] != ["}", "}"]:
            raise UnreadableError
        top, bottom = ahead[1], ahead[4]
        if not (top.isdigit() and bottom.isdigit() and len(bottom) < 30 and 0 < int(top) < int(bottom)):
            raise UnreadableError
        self._position += 7
        return self._arithmetic.divide(self._arithmetic.number(top), self._arithmetic.number(bottom))

    def _spaced_fraction_follows(self) -> bool:
        """Whether ` 1/2` follows, as in `3 1/2`."""
        ahead = self._tokens[self._position : self._position + 3]
        return (
            len(ahead) == 3 and ahead[0][1] and ahead[0][0].isdigit() and ahead[1][0] == "/" and ahead[2][0].isdigit()
        )

    def _group(self) -> Value:
        self._expect("{")
        value = self.sum()
        self._expect("}")
        return value

    def _fraction(self) -> Value:
        return self._arithmetic.divide(self._group(), self._group())

    def _binomial(self) -> Value:
        return self._arithmetic.binomial(self._group(), self._group())

    def _root(self) -> Value:
        degree = 2
        if self._peek() == "[":
            self._position += 1
            token = self._take()
            if not token.isdigit() or len(token) > 2 or int(token) < 2:
                raise UnreadableError
            degree = int(token)
            self._expect("]")
        return self._arithmetic.root(self._group(), degree)

    def _function(self, name: str) -> Value:
        r"""`\sin^{2}(x)`, `\log_{2}{8}`: brackets around the argument are required."""
        base = exponent = None
        if self._peek() == "_":
            self._position += 1
            base = self._exponent()
        if self._peek() == "^":
            self._position += 1
            if self._peek() == "{" and self._tokens[self._position + 1][0] == "-":
                raise UnreadableError  # an inverse or a reciprocal
            exponent = self._exponent()
        if self._peek() not in ("(", "{"):
            raise UnreadableError
        value = self._arithmetic.apply(name, self._atom())
        if base is not None:
            value = self._arithmetic.divide(value, self._arithmetic.apply(name, base))
        return value if exponent is None else self._arithmetic.power(value, exponent)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError

    def _peek(self) -> str | None:
        return self._tokens[self._position][0] if self._position < len(self._tokens) else None

    def _take(self) -> str:
        if self._position >= len(self._tokens):
            raise UnreadableError
        self._position += 1
        return self._tokens[self._position - 1][0]

    def _expect(self, symbol: str) -> None:
        if self._take() != symbol:
            raise UnreadableError


_READERS = {"\\frac": _Parser._fraction, "\\binom": _Parser._binomial, "\\sqrt": _Parser._root}
_FUNCTIONS = frozenset(
    {
        *("\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc", "\\arcsin", "\\arccos", "\\arctan"),
        *("\\sinh", "\\cosh", "\\tanh", "\\ln", "\\log", "\\exp"),
    }
)
