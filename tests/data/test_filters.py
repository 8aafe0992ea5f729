"""Each rule drops what it names and nothing that only looks like it."""

from __future__ import annotations

import pytest

from open_rs.data.filters import RULES, build_rule
from open_rs.types import Problem, UserError

CASES = [
    ("encoding", "If $\x0crac{1}{2n} = 3$, what is $n$?", "2", True),
    ("encoding", "What is \ufffd?", "2", True),
    ("encoding", "Line one\n\tand $\\frac{1}{2}$ — fine", "2", False),
    ("empty", "...", "2", True),
    ("empty", "What?", "\\emptyset", False),
    ("too_long", "x" * 5000, "2", True),
    ("proof", "Prove that $p = vv^*$ for every projection.", "p = vv^*", True),
    ("proof", "Show that there are infinitely many primes.", "-", True),
    ("proof", "Show that the sum converges and find its value.", "2", False),
    ("proof", "Find the number of ways to prove a theorem.", "2", False),
    ("multi_part", "Let $f(x)=x^2$. (1) Find $f(2)$. (2) Find the minimum of $f$.", "0", True),
    ("multi_part", "(a) What is $x$? (b) What is $y$?", "0", True),
    (
        "multi_part",
        "Kings are placed so that (i) no king attacks another; (ii) each row holds 25. Find the number.",
        "2",
        False,
    ),
    ("multi_part", "Compute $f(a)$ and use $g(b)$.", "2", False),
    ("multiple_choice", "What is $2+2$? (A) 3 (B) 4 (C) 5", "4", True),
    ("multiple_choice", "Find $r$. A) 10 B) 11 C) 12", "12", True),
    ("multiple_choice", "Which of the following equals 5?", "5", True),
    ("multiple_choice", "Points $A$, $B$ and $C$ lie on a line. Find $AB$.", "5", False),
    ("drawing", "Find $x$. [asy] draw((0,0)--(1,1)); [/asy]", "1", True),
    ("drawing", "Find $x$. ![Image](a.png)", "1", True),
    ("drawing", "Find $x$ in an easy way.", "1", False),
    ("figure", "In the diagram, $ABCD$ is a square.", "1", True),
    ("figure", "Two circles touch, as shown below.", "1", True),
    ("figure", "How many figures with three digits are there?", "1", False),
    ("link", "See https://example.org for the table.", "1", True),
    ("link", "What is 1.5 in km/h?", "1", False),
    ("no_value", "Q?", "N/A", True),
    ("no_value", "Q?", "see solution", True),
    ("no_value", "Q?", "-1", False),
    ("no_value", "Q?", "\\text{none of them is even}", False),
    ("guessable", "Is it?", "Yes", True),
    ("guessable", "Which?", "\\text{north}", False),
    ("foreign_script", "对于一组多项式 x + 1", "1", True),
    ("foreign_script", "Find $\\alpha$ with π.", "1", False),
]


@pytest.mark.parametrize(
    ("name", "question", "answer", "dropped"), CASES, ids=[f"{c[0]}: {c[1][:40]!r}" for c in CASES]
)
def test_rule(name: str, question: str, answer: str, dropped: bool) -> None:
    assert (RULES[name](Problem("id", question, answer, "source")) is not None) is dropped


def test_every_rule_has_a_row_in_the_table() -> None:
    assert {case[0] for case in CASES} == set(RULES)


def test_a_rule_of_ones_own_is_found_by_module_and_name() -> None:
    assert build_rule("open_rs.data.filters:too_long", {"max_question": 3})(Problem("1", "long", "2", "s")) is not None


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("prof", {}, "no rule `prof`"),
        ("too_long", {"max": 3}, "refuses its params"),
        ("nowhere:rule", {}, "can't import"),
    ],
)
def test_a_rule_that_is_not_there_is_refused(name: str, params: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_rule(name, params)


def test_ten_megabytes_do_not_hang_a_rule() -> None:
    problem = Problem("1", "a (1) Find " * 100_000, "2", "s")
    assert all(isinstance(rule(problem), str | None) for rule in RULES.values())
