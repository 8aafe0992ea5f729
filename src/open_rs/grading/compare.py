r"""Owns the comparison of two normalised answers: structure, then exact leaves, then symbolic mathematics.

The same walk runs twice: in the calling process with exact leaves only, where `Undecided` means "ask a worker", and
in a worker with symbolic leaves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from open_rs.grading.numeric import Formula, clearly_differ, read_formula
from open_rs.grading.rational import rational
from open_rs.grading.shape import Bracketed, Equation, Leaf, Many, Shape, shape_of
from open_rs.grading.values import same_solutions, same_values

LeafEqual = Callable[[str, str, "float | None"], bool]
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_WORDS = re.compile(r"(?:\\text\{[^{}]*\}|[\s.,'()-])+|\(?[A-Za-z]{4,}(?:[ '-][A-Za-z]+)*\)?|[A-Za-z]+(?: [A-Za-z]+)+")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_CHOICE_WITH_VALUE = re.compile(
    r"(?:\\text\{\s*)?(?:(?:[Oo]ption|[Cc]hoice) ?\(?([A-Z])(?![a-zA-Z])|\(([A-Z])\)|([A-Z])[).:])"
    r"(?!\s*\(?[A-Z][).:])\s*\}?.*",  # no second letter: `(A)(B)` chooses nothing
    re.DOTALL,
)
_BASED = re.compile(r"(\(?\d[\dA-Fa-f]*\)?)_\{?(\d+)\}?")
_TIME = re.compile(r"\d{1,2}(?::\d{1,2}){0,2} [ap]m")
_SET_NOTATION = re.compile(r"\\(?:setminus|cap|mathbb|backslash)(?![a-zA-Z])")
_BOUND_VARIABLE = re.compile(r"([a-zA-Z]\w*)\(([a-zA-Z])\)=")
_MAX_UNORDERED = 200


class Undecided(Exception):  # noqa: N818 (control flow, not an error)
    """Exact rules can't tell; symbolic mathematics might."""


def equal(
    gold: str, answer: str, leaf_equal: LeafEqual, relative_tolerance: float | None = None, *, shortcut: bool = True
) -> bool:
    """Whether a normalised answer equals a normalised gold. Raises what `leaf_equal` raises.

    Without `shortcut` equal strings prove nothing, so that an audit reaches the comparison itself.
    """
    if shortcut and gold == answer:
        return True
    choice = _CHOICE.fullmatch(gold)
    if choice and (stated := _CHOICE_WITH_VALUE.fullmatch(answer)):
        return next(letter for letter in stated.groups() if letter) == choice[1]
    if choice and choice[1] in "ABCDE" and re.fullmatch(r"\(?[a-e]\)?", answer):
        return answer.strip("()") == choice[1].lower()
    answer = _with_variable_of(gold, answer)
    return _Comparison(leaf_equal, relative_tolerance, shortcut).shapes(shape_of(gold), shape_of(answer), gold, answer)


def _with_variable_of(gold: str, answer: str) -> str:
    """`f(z)=z^2` with the variable of `f(x)=x^2`: the name of a function's argument means nothing."""
    ours, theirs = _BOUND_VARIABLE.match(gold), _BOUND_VARIABLE.match(answer)
    if ours is None or theirs is None or ours[1] != theirs[1] or ours[2] == theirs[2]:
        return answer
    if re.search(rf"(?<![a-zA-Z\\]){ours[2]}(?![a-zA-Z])", answer):
        return answer
    return re.sub(rf"(?<![a-zA-Z\\]){theirs[2]}(?![a-zA-Z])", ours[2], answer)


def exact_leaf(gold: str, answer: str, relative_tolerance: float | None) -> bool:
    """Compare words and fractions; raises `Undecided` where that is not enough."""
    gold_based, answer_based = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if gold_based or answer_based:
        return _same_digits(gold_based, answer_based, gold, answer)
    if _TIME.fullmatch(gold) or _TIME.fullmatch(answer):
        return _same_time(gold, answer)
    gold_words, answer_words = words(gold), words(answer)
    if (gold_words is None) != (answer_words is None):
        gold_words, answer_words = gold_words or _letters(gold), answer_words or _letters(answer)
    if gold_words is not None and answer_words is not None:
        return gold_words == answer_words
    gold_values, answer_values = values(gold), values(answer)
    if gold_values and answer_values:
        return _any_close(gold_values, answer_values, relative_tolerance)
    if (gold_values and answer_words) or (gold_words and answer_values):
        return False
    if clearly_differ(gold, answer, relative_tolerance or 0.0):
        return False
    gold_formula, answer_formula = read_formula(gold), read_formula(answer)
    if gold_formula is not None and answer_formula is not None:
        same = same_values(gold_formula, answer_formula, relative_tolerance)
        if same is not None:
            return same
    raise Undecided


def _same_digits(gold: re.Match[str] | None, answer: re.Match[str] | None, gold_text: str, answer_text: str) -> bool:
    """`52_8` and `52_{8}` agree; a base stated on one side only is taken as understood on the other."""
    digits = [match[1] if match else text for match, text in ((gold, gold_text), (answer, answer_text))]
    bases = {match[2] for match in (gold, answer) if match}
    return digits[0].strip("()").lower() == digits[1].strip("()").lower() and len(bases) == 1


def _same_time(gold: str, answer: str) -> bool:
    """`1:58 am` and `1:58` agree, `1:58 am` and `1:58 pm` don't."""
    halves = {text[-2:] for text in (gold, answer) if text[-1] == "m"}
    return len(halves) == 1 and gold.split()[0] == answer.split()[0]


def _letters(text: str) -> str | None:
    return text.lower() if re.fullmatch("[A-Za-z]+", text) else None


def words(text: str) -> str | None:
    """The words of an answer that holds nothing else, in lower case; None for mathematics."""
    choice = _CHOICE.fullmatch(text)
    if choice:
        return choice[1].lower()
    if not _WORDS.fullmatch(text):
        return None
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    return " ".join(re.sub(r"[^\w\s]", " ", bare).lower().split()) or None


@lru_cache(maxsize=1 << 16)
def values(text: str) -> tuple[Fraction, ...]:
    """What number a text may mean; a percentage means `p` and `p/100`. Empty where it is no rational number.

    Raises `TooLargeError` (not cached) for numbers beyond reach.
    """
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if text.endswith("%"):
        value = rational(text[:-1])
        return () if value is None else (value, value / 100)
    value = rational(text)
    return () if value is None else (value,)


def _any_close(golds: tuple[Fraction, ...], answers: tuple[Fraction, ...], relative_tolerance: float | None) -> bool:
    if len(golds) == len(answers) == 2:
        golds, answers = golds[:1], answers[:1]
    if relative_tolerance is None:
        return any(gold == answer for gold in golds for answer in answers)
    tolerance = Fraction(relative_tolerance)
    return any(abs(gold - answer) <= tolerance * abs(gold) for gold in golds for answer in answers)


class _Comparison:
    """One walk over two shapes."""

    def __init__(self, leaf_equal: LeafEqual, relative_tolerance: float | None, shortcut: bool) -> None:
        self._leaf_equal = leaf_equal
        self._shortcut = shortcut
        self._relative_tolerance = relative_tolerance

    def shapes(self, gold: Shape, answer: Shape, gold_text: str, answer_text: str) -> bool:
        if self._as_thousands(gold, answer, gold_text, answer_text):
            return True
        return self._pair(gold, answer)

    def _as_thousands(self, gold: Shape, answer: Shape, gold_text: str, answer_text: str) -> bool:
        """`1,234` may be a number or a list; it is the number if the other side is that number."""
        if not (_THOUSANDS.fullmatch(gold_text) or _THOUSANDS.fullmatch(answer_text)):
            return False
        if isinstance(gold, Leaf) or isinstance(answer, Leaf):
            golds, answers = values(gold_text), values(answer_text)
            return bool(golds and answers) and _any_close(golds, answers, self._relative_tolerance)
        return False

    def _pair(self, gold: Shape, answer: Shape) -> bool:
        if self._shortcut and gold == answer:
            return True
        if isinstance(answer, Equation) or isinstance(gold, Equation):
            return self._equations(gold, answer)
        if isinstance(gold, Leaf) and isinstance(answer, Leaf):
            return self._leaf_equal(gold.text, answer.text, self._relative_tolerance)
        if isinstance(gold, Bracketed) and isinstance(answer, Bracketed):
            return (
                (gold.left, gold.right) == (answer.left, answer.right)
                and self._pair(gold.start, answer.start)
                and self._pair(gold.end, answer.end)
            )
        for leaf in (gold, answer):
            if isinstance(leaf, Leaf) and _SET_NOTATION.search(leaf.text):
                raise Undecided
        return self._several(_as_many(gold), _as_many(answer))

    def _several(self, gold: Many | None, answer: Many | None) -> bool:
        if gold is None or answer is None or len(gold.parts) != len(answer.parts):
            return False
        if "union" in (gold.kind, answer.kind) and not all(isinstance(part, Bracketed | Many) for part in answer.parts):
            return False
        if gold.kind in _UNORDERED and answer.kind in _UNORDERED:
            return self._unordered(gold.parts, answer.parts)
        return all(self._pair(g, a) for g, a in zip(gold.parts, answer.parts, strict=True))

    def _unordered(self, golds: tuple[Shape, ...], answers: tuple[Shape, ...]) -> bool:
        """Match each gold part with a different answer part; equality is transitive, so the first match will do."""
        left = list(answers)
        for gold in golds:
            if gold in left and (self._shortcut or len(golds) > _MAX_UNORDERED):
                left.remove(gold)
                continue
            if len(golds) > _MAX_UNORDERED:
                return False
            found = self._first_match(gold, left)
            if found is None:
                return False
            left.pop(found)
        return True

    def _first_match(self, gold: Shape, candidates: list[Shape]) -> int | None:
        undecided = False
        for index, candidate in enumerate(candidates):
            try:
                if self._pair(gold, candidate):
                    return index
            except Undecided:
                undecided = True
        if undecided:
            raise Undecided
        return None

    def _equations(self, gold: Shape, answer: Shape) -> bool:
        if not isinstance(answer, Equation):
            assert isinstance(gold, Equation)
            return self._pair(gold.sides[-1], answer) if _is_assignment(gold) else False
        if not isinstance(gold, Equation):
            return not _contradicts_itself(answer) and self._pair(gold, answer.sides[-1])
        if _is_assignment(gold) and _is_assignment(answer) and gold.sides[0] == answer.sides[0]:
            return self._pair(gold.sides[-1], answer.sides[-1])
        gold_formula, answer_formula = _difference(gold), _difference(answer)
        if gold_formula is not None and answer_formula is not None:
            same = same_solutions(gold_formula, answer_formula)
            if same is not None:
                return same
        raise Undecided


def _difference(equation: Equation) -> Formula | None:
    """Left minus right, for an equation of two formulas."""
    texts = [side.text for side in equation.sides if isinstance(side, Leaf)]
    return read_formula(f"{texts[0]}-({texts[1]})") if len(texts) == len(equation.sides) == 2 else None


def _as_many(shape: Shape) -> Many | None:
    r"""The parts of a shape: an open interval may be a pair, and a number the set of itself."""
    if isinstance(shape, Bracketed):
        return Many("tuple", (shape.start, shape.end)) if (shape.left, shape.right) == ("(", ")") else None
    return Many("set", (shape,)) if isinstance(shape, Leaf) else shape if isinstance(shape, Many) else None


def _contradicts_itself(equation: Equation) -> bool:
    """`1=7` gives no answer: two of its sides are different numbers."""
    sides = [values(side.text) for side in equation.sides if isinstance(side, Leaf)]
    return len({side for side in sides if side}) > 1


def _is_assignment(equation: Equation) -> bool:
    """Whether the left side is a name, `f(x)`, or a tuple of names."""
    first = equation.sides[0]
    names = (first.start, first.end) if isinstance(first, Bracketed) else (first,)
    names = first.parts if isinstance(first, Many) and first.kind == "tuple" else names
    return all(isinstance(name, Leaf) and _ASSIGNED.fullmatch(name.text) is not None for name in names)


_ASSIGNED = re.compile(r"(?:\\?[a-zA-Z]+|\\text\{[^{}]*\})(?:_(?:\{.*\}|\w+))?(?:\^\{\\prime\}|')*(?:\([^()]*\))?")
_UNORDERED = frozenset({"list", "set", "union"})
