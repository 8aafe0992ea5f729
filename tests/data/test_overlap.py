"""Decontamination finds every disguise of a benchmark problem, and lets other uses of its template go."""

from __future__ import annotations

from pathlib import Path

import pytest

from open_rs.config.curation import SourceConfig
from open_rs.data.intake import open_benchmarks, open_source
from open_rs.data.overlap import find_overlaps
from open_rs.data.stages import same_answer
from open_rs.data.text import tokens
from open_rs.grading import Grader
from open_rs.types import Problem

ITEM = Problem(
    "exam:1",
    r"Let $f(x)=\frac{x^2+7}{x-3}$ for real numbers $x \ne 3$. A tangent to the graph of $f$ at the point where $x=11$ "
    r"meets the $y$-axis at the point $P$. Find the distance from $P$ to the origin, rounded to the nearest integer.",
    "25",
    "exam",
)
SHORT = Problem("exam:2", "Compute $\\sin 60^\\circ.$", r"\frac{\sqrt{3}}{2}", "exam")
RESTATED = Problem(
    "exam:3",
    "Given $z_0=\\frac{1}{137}+i$ and $z_{n+1}=\\frac{z_n+i}{z_n-i}$ for all $n \\ge 0$, find $z_{2002}.$",
    "1+274i",
    "exam",
)


def same(one: str, other: str) -> bool:
    return one == other


def kinds(question: str, answer: str, item: Problem = ITEM) -> list[str]:
    return [found.kind for found in find_overlaps([Problem("row", question, answer, "pool")], [item], same)]


DISGUISES = {
    "as it is": ITEM.question,
    "white space": ITEM.question.replace(" ", "  \n"),
    "other LaTeX": ITEM.question.replace("\\frac", "\\dfrac").replace("\\ne", "\\neq"),
    "round delimiters": r"Let \(f(x)=\frac{x^2+7}{x-3}\)" + ITEM.question.partition("$")[2].partition("$")[2],
    "no dollars": ITEM.question.replace("$", ""),
    "capitals": ITEM.question.upper().replace("\\FRAC", "\\frac").replace("\\NE", "\\ne"),
    "words before it": "Solve this problem with care and explain every step. " + ITEM.question,
    "words behind it": ITEM.question + " Put the final answer within a box.",
    "a few other words": ITEM.question.replace("Find the distance", "What is the distance").replace("meets", "cuts"),
    "unicode": ITEM.question.replace("\\ne", "≠"),
    "a drawing added": ITEM.question + " [asy] draw((0,0)--(1,1)); [/asy]",
}


@pytest.mark.parametrize("question", DISGUISES.values(), ids=DISGUISES.keys())
def test_a_disguised_copy_is_found(question: str) -> None:
    assert kinds(question, "25")


OTHERS = {
    "other numbers": (ITEM.question.replace("7", "5").replace("11", "12").replace("3", "4"), "31"),
    "only the ending": (
        "A line meets the curve at Q. Find the distance from Q to the origin, rounded to the nearest integer.",
        "25",
    ),
    "the same answer alone": ("What is 5 squared?", "25"),
}


@pytest.mark.parametrize(("question", "answer"), OTHERS.values(), ids=OTHERS.keys())
def test_another_problem_is_let_go(question: str, answer: str) -> None:
    assert kinds(question, answer) == []


def test_a_copy_with_a_wrong_answer_is_a_copy() -> None:
    assert kinds(ITEM.question, "999") == ["exact"]


def test_a_short_item_needs_the_same_words_and_numbers() -> None:
    assert kinds("Compute $\\sin 60^\\circ$.", "?", SHORT) == ["exact"]
    assert kinds("Compute $\\sin 45^\\circ.$", SHORT.answer, SHORT) == []


def test_the_same_data_asked_for_another_quantity_is_found() -> None:
    asked = RESTATED.question.replace("find $z_{2002}.$", "and $z_{2002}=a+bi$, find $a+b.$")
    assert kinds(asked, "275", RESTATED) == ["re-asked"]


def test_common_phrases_are_no_evidence_and_many_copies_stay_evidence() -> None:
    phrase = "where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
    item = Problem("exam:4", f"The probability that a walk of 12 steps ends at home is $m/n$, {phrase}", "17", "exam")
    pool = [
        Problem(f"p{i}", f"Another question, number {i}, has the answer $m/n$, {phrase}", "17", "pool")
        for i in range(40)
    ]
    assert find_overlaps(pool, [item], same) == []
    copies = [Problem(f"c{i}", f"Version {i}: {item.question}", "17", "pool") for i in range(40)]
    assert len(find_overlaps([*pool, *copies], [item], same)) == 40


def test_spellings_of_one_formula_have_the_same_tokens() -> None:
    spellings = (r"$\dfrac{1}{2}AB \le 1{,}000$", r"\( \frac12 A B \leq 1000 \)", "$\\tfrac{1}{2}AB \\leqslant 1,000$")
    assert {tuple(tokens(text)) for text in spellings} == {("frac", "1", "2", "a", "b", "leq", "1000")}
    assert tokens("$(1+2) \\cdot 3$") != tokens("$1+(2*3)$")


def test_nothing_against_nothing() -> None:
    assert find_overlaps([], [ITEM], same) == []
    assert find_overlaps([ITEM], [], same) == []


def real(shared_data: Path, name: str) -> list[Problem]:
    rows = open_source(SourceConfig(name=name), [shared_data / "train"]).rows
    return [row for row in rows if isinstance(row, Problem)]


def test_real_aime_problems_against_real_benchmarks(shared_data: Path) -> None:
    """Eight copies and two that ask for another quantity; the rule of any shared 8-gram flags 227 against AIME24."""
    pool = real(shared_data, "aime_1983_2023")
    with Grader() as grader:
        against = {
            name: find_overlaps(pool, open_benchmarks([name], [shared_data / "benchmarks"]), same_answer(grader))
            for name in ("math_500", "aime24")
        }
    assert sum(found.kind in ("exact", "copy") for found in against["math_500"]) == 8
    assert sum(found.kind == "re-asked" for found in against["math_500"]) == 2
    assert len(against["aime24"]) <= 2
