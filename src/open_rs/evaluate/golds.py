"""Golds that a benchmark states badly, and problems that can't be solved as they stand: rules, not lists of rows.

The published score counts such rows as wrong for everybody. `--raw-gold` keeps them as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from open_rs.types import Problem

# A relay problem passes T on from the one before it; alone it can't be solved. Copies space the letters differently.
RELAY = re.compile(r"T\s*=\s*T\s*N\s*Y\s*W\s*R", re.IGNORECASE)
PYTHON_NUMBER = re.compile(r"(?P<digits>[+-]?\d+(?:\.\d*)?|[+-]?\.\d+)[eE](?P<power>[+-]?\d+)")
PYTHON_CALL = re.compile(r"\b(?:np|numpy|math)\.(?P<name>[a-z0-9]+)")
FLOAT_FRACTION = re.compile(r"(?P<top>[+-]?\d+)\.(?P<bottom>/\d+)")
STRAY_DOLLARS = re.compile(r"^\$(?P<first>[^$]*),\s*\$(?P<rest>[^$]*)\$$")


@dataclass(frozen=True, slots=True)
class Audited:
    """Problems with usable golds, changed golds (id -> old, new), and problems left out (id -> reason)."""

    problems: tuple[Problem, ...]
    corrected: dict[str, tuple[str, str]]
    unsolvable: dict[str, str]


def audit(problems: tuple[Problem, ...]) -> Audited:
    """Correct the golds that follow a known bad spelling and name the problems that nobody can solve."""
    corrected: dict[str, tuple[str, str]] = {}
    kept: list[Problem] = []
    for problem in problems:
        gold = correct_gold(problem.answer)
        if gold != problem.answer:
            corrected[problem.id] = (problem.answer, gold)
        kept.append(replace(problem, answer=gold))
    unsolvable = {problem.id: reason for problem in problems if (reason := why_unsolvable(problem)) is not None}
    return Audited(tuple(kept), corrected, unsolvable)


def correct_gold(gold: str) -> str:
    """A gold as a mathematician would write it: `4.5e33` becomes `4.5 \\times 10^{33}`."""
    text = gold.strip()
    number = PYTHON_NUMBER.fullmatch(text)
    if number is not None:
        return f"{number['digits'].removesuffix('.')} \\times 10^{{{int(number['power'])}}}"
    text = PYTHON_CALL.sub(lambda call: f"\\{PYTHON_FUNCTIONS.get(call['name'], call['name'])}", text)
    text = FLOAT_FRACTION.sub(lambda part: part["top"] + part["bottom"], text)
    return STRAY_DOLLARS.sub(lambda part: f"{part['first']}, {part['rest']}", text)


def why_unsolvable(problem: Problem) -> str | None:
    """Why nobody could answer the question as it is asked, or None."""
    return "relay problem: its T comes from a problem that is not shown" if RELAY.search(problem.question) else None


PYTHON_FUNCTIONS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "arctan2": "arctan"}
