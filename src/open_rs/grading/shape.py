r"""Owns the structure of an answer: a list, set, tuple, interval, union, matrix or equation of smaller answers.

Splitting it ourselves keeps ambiguous notation out of the symbolic parser, which reads `(1,2)` as an interval and
`1,234` as two numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_OPENING = {"(": ")", "[": "]", "{": "}"}
_CLOSING = frozenset(")]}")
_MATRIX = re.compile(
    r"[\[(|]?\s*\\begin\{(?:[pbvBV]?matrix|array|smallmatrix|cases)\}(?:\{[lcr|]*\})?(.*)\\end\{(?:[pbvBV]?matrix|array|smallmatrix|cases)\}\s*[\])|]?",
    re.DOTALL,
)
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|to)(?![a-zA-Z])|[<>=]")
_NAME = re.compile(r"(?:\\?[a-zA-Z]+|\\text\{[^{}]*\})(?:_(?:\{[^{}]*\}|\w))?'*(?:\([^()]*\))?|\|[^|]*\||\\angle.*")
_SET_BUILDER = re.compile(r"\\\{([a-zA-Z])(?:\\in\\mathbb\{R\})?[|:](.*)\\\}", re.DOTALL)
_LOST_MEMBERSHIP = re.compile(
    r"[a-z](?:\([^()\[\]]*,[^()\[\]]*\]|\[[^()\[\]]*,[^()\[\]]*\))"
)  # t(0,4]: no point, no value
_REALS = ("\\mathbb{R}", "(-\\infty,\\infty)", "(-\\infty,+\\infty)")


@dataclass(frozen=True, slots=True)
class Leaf:
    """An answer without structure: a number, a formula or words."""

    text: str


@dataclass(frozen=True, slots=True)
class Many:
    """Several answers: `kind` is list or set (order is free), tuple, matrix row or union."""

    kind: str
    parts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Bracketed:
    """Two ends between brackets: an open interval looks like a pair, so both stay one shape."""

    left: str
    right: str
    start: Shape
    end: Shape


@dataclass(frozen=True, slots=True)
class Equation:
    """`sides` joined by `=`."""

    sides: tuple[Shape, ...]


Shape = Leaf | Many | Bracketed | Equation


@lru_cache(maxsize=1 << 16)
def shape_of(text: str) -> Shape:
    """The structure of a normalised answer. Never raises; what it can't read is a leaf."""
    return _shape(text, 0)


def _shape(text: str, depth: int) -> Shape:
    text = text.strip()
    if depth > 8 or len(text) > 4000:
        return Leaf(text)
    for reader in _READERS:
        found = reader(text, depth)
        if found is not None:
            return found
    return Leaf(text)


def _read_reals(text: str, depth: int) -> Shape | None:
    del depth
    return Bracketed("(", ")", Leaf(r"-\infty"), Leaf(r"\infty")) if text in _REALS else None


def _read_matrix(text: str, depth: int) -> Shape | None:
    match = _MATRIX.fullmatch(text)
    if match is None or r"\begin" in match[1]:
        return None
    rows = [row for row in re.split(r"\\cr(?![a-zA-Z])", match[1]) if row.strip()]
    cells = [tuple(_shape(cell, depth + 1) for cell in row.split("&")) for row in rows]
    if all(len(row) == 1 for row in cells):
        return Many("vector", tuple(row[0] for row in cells))
    if len(cells) == 1:
        return Many("vector", cells[0])
    return Many("matrix", tuple(Many("vector", row) for row in cells))


def _read_list(text: str, depth: int) -> Shape | None:
    parts = split_top(text, ",;")
    if parts is None:
        parts = _split_words(text)
    parts = [part for part in parts or [] if part.strip()]
    return Many("list", _flat(parts, depth)) if len(parts) > 1 else None


def _flat(parts: list[str], depth: int) -> tuple[Shape, ...]:
    r"""The shapes of parts; one that is itself several answers, as `\pm 2` is, gives them all."""
    shapes = (_shape(part, depth + 1) for part in parts)
    return tuple(
        part
        for shape in shapes
        for part in (shape.parts if isinstance(shape, Many) and shape.kind == "list" else (shape,))
    )


def _split_words(text: str) -> list[str] | None:
    parts = re.split(r"(?<![a-zA-Z\\])\s*(?:and|or)\s*(?![a-zA-Z])", text)
    return parts if len(parts) > 1 else None


def _read_union(text: str, depth: int) -> Shape | None:
    parts = split_top(text, ("\\cup",))
    return Many("union", tuple(_shape(part, depth + 1) for part in parts)) if parts else None


def _read_relation(text: str, depth: int) -> Shape | None:
    cuts = [match for match in _RELATION.finditer(text) if _depth_at(text, match.start()) == 0]
    if not cuts:
        return None
    signs = [cut.group() for cut in cuts]
    edges = [0, *(edge for cut in cuts for edge in cut.span()), len(text)]
    sides = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    if not all(side.strip() for side in sides):
        return None
    if set(signs) == {"="}:
        return Equation(tuple(_shape(side, depth + 1) for side in sides))
    if signs == [r"\in"] and _is_name(sides[0]):
        return _shape(sides[1], depth + 1)
    return _interval_of(sides, signs)


def _interval_of(sides: list[str], signs: list[str]) -> Shape | None:
    """`x>3` as an interval; `1<x\\le2` too."""
    if len(signs) == 1 and signs[0] in _FLIP:
        if _is_name(sides[0]):
            return _half_line(sides[1], signs[0])
        if _is_name(sides[1]):
            return _half_line(sides[0], _FLIP[signs[0]])
    if len(signs) == 2 and _is_name(sides[1]):
        if all(sign in ("<", r"\le") for sign in signs):
            return _interval(sides[0], signs[0], sides[2], signs[1])
        if all(sign in (">", r"\ge") for sign in signs):
            return _interval(sides[2], signs[1], sides[0], signs[0])
    return None


def _half_line(bound: str, sign: str) -> Shape:
    if sign in ("<", r"\le"):
        return _interval(r"-\infty", "<", bound, sign)
    return _interval(bound, sign, r"\infty", "<")


def _interval(start: str, left_sign: str, end: str, right_sign: str) -> Shape:
    left = "(" if left_sign in "<>" else "["
    right = ")" if right_sign in "<>" else "]"
    return Bracketed(left, right, Leaf(start.strip()), Leaf(end.strip().removeprefix("+")))


def _read_brackets(text: str, depth: int) -> Shape | None:
    if _LOST_MEMBERSHIP.fullmatch(text):
        text = text[1:]
    builder = _SET_BUILDER.fullmatch(text)
    if builder:
        return _shape(builder[2], depth + 1)
    if text.startswith(r"\{") and text.endswith(r"\}") and _closes_at_end(text, 1):
        return _set_of(text[2:-2], depth)
    if len(text) < 3 or text[0] not in "([" or text[-1] not in ")]" or not _closes_at_end(text, 0):
        return None
    parts = split_top(text[1:-1], ",;")
    if parts is None:
        return _shape(text[1:-1], depth + 1) if text[0] == "(" and text[-1] == ")" else None
    inner = tuple(_shape(part.removeprefix("+") if "infty" in part else part, depth + 1) for part in parts)
    if len(inner) == 2:
        return Bracketed(text[0], text[-1], *inner)
    return Many("tuple", inner)


def _set_of(inside: str, depth: int) -> Shape:
    if not inside.strip():
        return Leaf(r"\emptyset")
    parts = split_top(inside, ",;") or [inside]
    return Many("set", _flat(parts, depth))


def _read_plus_minus(text: str, depth: int) -> Shape | None:
    if text.count(r"\pm") != 1:
        return None
    plus, minus = (text.replace(r"\pm", sign) for sign in ("+", "-"))
    plus, minus = (re.sub(r"^([^=]*=)?\+", r"\1", signed) for signed in (plus, minus))
    return Many("list", (_shape(plus, depth + 1), _shape(minus, depth + 1)))


def split_top(text: str, separators: str | tuple[str, ...]) -> list[str] | None:
    """Cut at separators that stand outside every bracket; None where there is none."""
    parts: list[str] = []
    depth = start = index = 0
    while index < len(text):
        character = text[index]
        depth += _step(text, index)
        found = next((s for s in separators if depth == 0 and text.startswith(s, index)), None)
        if found is not None:
            parts.append(text[start:index])
            start = index + len(found)
            index = start
            continue
        index += 2 if character == "\\" and text[index + 1 : index + 2] not in ("{", "}") else 1
    return [*parts, text[start:]] if parts else None


def _step(text: str, index: int) -> int:
    character = text[index]
    if character in _OPENING:
        return 1
    return -1 if character in _CLOSING else 0


def _depth_at(text: str, end: int) -> int:
    return sum(_step(text, index) for index in range(end))


def _closes_at_end(text: str, opening: int) -> bool:
    """Whether the bracket at `opening` closes at the last character; brackets may differ, as in `[0,1)`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += _step(text, index)
        if depth == 0:
            return index == len(text) - 1
    return False


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text.strip()) is not None


_FLIP = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_READERS = (_read_reals, _read_matrix, _read_list, _read_union, _read_relation, _read_brackets, _read_plus_minus)
