r"""Owns the question whether a gold can grade anybody: it must recognise itself, spelled another way."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from open_rs.grading.extract import trailing_boxes
from open_rs.grading.grader import Grader
from open_rs.grading.normalise import normalise

_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}|(?<![\w.\\{])(\d+)/(\d+)(?![\w.])")
_PLAIN_INTEGER = re.compile(r"-?\d{1,15}")
_SCIENTIFIC = re.compile(r"(\d+(?:\.\d+)?)[eE]([+-]?\d+)")
_BRACKET = re.compile(r"(?<!\\left)(?<!\\right)(?<!\\)([()\[\]])")
_OPERATOR = re.compile(r"(?<=[\w}])([+=<>])(?=[\w\\{])")
_AMBIGUOUS = (
    (re.compile(r"\$?\d{1,3}(?:,\d{3})+\$?$"), "one number or several?"),
    (re.compile(r"\\pm.*\\pm"), "several plus-minus signs"),
    (re.compile(r"(?<![a-zA-Z])(?:or|and/or)(?![a-zA-Z])"), "alternatives"),
    (re.compile(r"\\approx|\\sim(?![a-zA-Z])|\\cdots|\\ldots|\.\.\."), "an approximation or an open end"),
    (re.compile(r"\?|\\text\{ ?(?:cannot|impossible to) "), "an open question"),
)


def audit(gold: str, grader: Grader) -> str | None:
    """Why nobody can be graded against `gold`, or None where it recognises itself in another spelling.

    The equal-strings shortcut is off, so that the gold really goes through the comparison. Reasons: `gold_empty`,
    `gold_unparsable`, `gold_differs_from_itself: ...`.
    """
    boxes = trailing_boxes(gold)
    bare = boxes[-1] if boxes else gold
    if not normalise(bare):
        return "gold_empty"
    for spelling in (bare, respell(bare)):
        correct, reason = grader.compare(normalise(bare), normalise(spelling), shortcut=False).wait()
        if correct is not True:
            return reason if correct is None else f"gold_differs_from_itself: `{spelling}` ({reason})"
    return None


@dataclass(frozen=True, slots=True)
class Finding:
    """A gold that needs a person's eye."""

    id: str
    gold: str
    reason: str


@dataclass(frozen=True, slots=True)
class Audited:
    """`failed`: golds that nobody can be graded against. `ambiguous`: golds that work, and could be read in two
    ways.
    """

    num_golds: int
    failed: tuple[Finding, ...]
    ambiguous: tuple[Finding, ...]


def audit_golds(golds: Iterable[tuple[str, str]], grader: Grader) -> Audited:
    """Audit many (id, gold) pairs, in order."""
    failed: list[Finding] = []
    ambiguous: list[Finding] = []
    count = 0
    for identity, gold in golds:
        count += 1
        reason, doubt = audit(gold, grader), ambiguity(gold)
        if reason is not None:
            failed.append(Finding(identity, gold, reason))
        elif doubt is not None:
            ambiguous.append(Finding(identity, gold, doubt))
    return Audited(count, tuple(failed), tuple(ambiguous))


def self_grades(gold: str, grader: Grader) -> bool:
    """Whether `audit` finds nothing wrong."""
    return audit(gold, grader) is None


def ambiguity(gold: str) -> str | None:
    """What makes a gold look as if it could be read in two ways, or None."""
    boxes = trailing_boxes(gold)
    bare = boxes[-1] if boxes else gold
    return next((what for pattern, what in _AMBIGUOUS if pattern.search(bare)), None)


def respell(gold: str) -> str:
    r"""The same answer in another spelling: other fractions, other spacing, `\left` and `\right`, powers of ten.

    `respell("(1/2,3]") == r"\left( \dfrac{2}{4},3\right] "`.
    """
    text = gold.strip().strip("$")
    if _PLAIN_INTEGER.fullmatch(text):
        return rf"\dfrac{{{2 * int(text)}}}{{2}}"
    text = _SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = _FRACTION.sub(_expand, text)
    text = _OPERATOR.sub(r" \1 ", text)
    return _BRACKET.sub(_stretch, text) if _balanced(text) else text


def _expand(match: re.Match[str]) -> str:
    top, bottom = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
    return rf"\dfrac{{{2 * int(top)}}}{{{2 * int(bottom)}}}"


def _stretch(match: re.Match[str]) -> str:
    return (r"\left" if match[1] in "([" else r"\right") + match[1] + " "


def _balanced(text: str) -> bool:
    """Whether `\\left` and `\\right` would pair up; a root's `[3]` would not survive them."""
    opened = sum(text.count(bracket) for bracket in "([")
    return opened == sum(text.count(bracket) for bracket in ")]") and r"\sqrt[" not in text
