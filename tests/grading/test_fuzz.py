"""Whatever a model writes, a verdict comes back."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from open_rs.grading import Grader, extract, normalise
from open_rs.grading.files import grade_file
from open_rs.rewards.terms import TERMS
from open_rs.types import Group, Problem, Rollout, Verdict

PIECES = st.sampled_from(
    [
        *(
            "\\boxed{",
            "\\fbox{",
            "{",
            "}",
            "\\{",
            "\\}",
            "(",
            ")",
            "[",
            "]",
            "\\left(",
            "\\right)",
            "$",
            "$$",
            "\\(",
            "\\[",
        ),
        *(
            "\\frac",
            "\\frac{1}{2}",
            "\\sqrt",
            "\\sqrt[3]{2}",
            "^",
            "^{",
            "_",
            "!",
            "\\pm",
            "\\cdot",
            "\\times",
            "/",
            "%",
            "=",
        ),
        *(
            "\\sum_{k=1}^{10}",
            "\\int_0^1",
            "\\binom{5}{2}",
            "\\text{ and }",
            "\\text{",
            "\\mathbb{R}",
            "\\infty",
            "<",
            "\\le",
        ),
        *(
            "\\begin{pmatrix}",
            "\\end{pmatrix}",
            "&",
            "\\\\",
            ",",
            ";",
            ":",
            "1,234",
            "0.5",
            "007",
            "1e9",
            "10^{10^{10}}",
            "9999",
        ),
        *(
            "x",
            "y",
            "e",
            "i",
            "\\pi",
            "\\sin",
            "\\log_2",
            "f(x)",
            "\\overline{3}",
            "\\circ",
            "cm",
            "\x00",
            "\ud800",
            "½",
            "²",
        ),
        *(
            "<think>",
            "</think>",
            "answer is ",
            "７",
            "−",
            "√",
            "\n",
            " ",
            "\\",
            "\\color{red}",
            "\\cup",
            "\\in",
            "\\emptyset",
        ),
    ]
)
LATEX = st.lists(PIECES, max_size=30).map("".join)
UNIT_PIECES = st.sampled_from(
    [
        *(
            "\\mathrm{",
            "\\text{",
            "{\\rm ",
            "}",
            "\\mathrm{~kg}",
            "\\text{ m}",
            "\\mathrm{s}^{-1}",
            "cm",
            "N",
            " m",
            "/",
            " ",
        ),
        *(
            "\\cdot",
            "^{2}",
            "^2",
            "\\frac{",
            "(",
            ")",
            "[",
            "]",
            "\\mu",
            "\\Omega",
            "^\\circ",
            "\\mathrm{C}",
            "\\odot",
            "M_",
        ),
        *(
            "5",
            "0.1",
            "\\times 10^{3}",
            "e-5",
            "1",
            ",",
            " or ",
            "solutions",
            "square ",
            "per",
            "p.m.",
            "x",
            "=",
            "\\pi",
            ".",
        ),
    ]
)
WITH_UNITS = st.lists(st.one_of(UNIT_PIECES, PIECES), max_size=15).map("".join)
UNICODE = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)
OPENINGS = st.sampled_from(["{", "(", "\\boxed{", "\\frac{1}{", "\\sqrt{", "\\left("])
CLOSINGS = st.sampled_from(["}", ")", "\\right)", ""])
DEEP = st.builds(
    lambda opening, times, inner, closing: opening * times + inner + closing * times,
    OPENINGS,
    st.integers(0, 3000),
    LATEX,
    CLOSINGS,
)
LONG = st.builds(lambda piece, times: piece * times, PIECES, st.integers(1, 60_000)).map(lambda text: text[:1_000_000])
COMPLETIONS = st.one_of(
    LATEX, UNICODE, DEEP, LONG, st.builds("so \\boxed{{{}}}".format, st.one_of(LATEX, UNICODE, DEEP))
)
SLOW_IS_FINE = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.filter_too_much,
)
GOLDS = st.one_of(
    st.sampled_from(["5", "\\frac{1}{2}", "(1,2)", "x^2+1", "\\{1,2\\}", "\\text{Yes}", "B", "1,2"]), LATEX
)


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=2, timeout_seconds=2) as grader:
        yield grader


def assert_one_verdict(grader: Grader, gold: str, completion: str, reasoning_open: bool, fallback: bool) -> None:
    started = time.perf_counter()
    verdict = grader.grade(gold, completion, reasoning_open=reasoning_open, fallback=fallback)
    assert verdict.correct in (True, False, None)
    assert verdict.reason
    assert time.perf_counter() - started < 60
    assert normalise(normalise(completion[:5000])) == normalise(completion[:5000])
    assert json.loads(json.dumps(extract(completion).answer)) == extract(completion).answer


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
@given(GOLDS, COMPLETIONS, st.booleans(), st.booleans())
def test_every_completion_gets_a_verdict(grader: Grader, gold: str, completion: str, opened: bool, fall: bool) -> None:
    assert_one_verdict(grader, gold, completion, opened, fall)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
@given(GOLDS, COMPLETIONS, st.booleans(), st.booleans())
def test_ten_thousand_completions_get_a_verdict(
    grader: Grader, gold: str, completion: str, opened: bool, fall: bool
) -> None:
    assert_one_verdict(grader, gold, completion, opened, fall)


@settings(max_examples=3000, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
@given(st.one_of(LATEX, WITH_UNITS, UNICODE))
@example("\\text{\\}\\boxed{")
@example("$145$solution:")
@example(r"1.325 \times 10^{-27} \mathrm{~kg} \cdot \mathrm{m} / \mathrm{s}")
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=SLOW_IS_FINE)
@given(st.one_of(DEEP, LONG).map(lambda text: text[:5000]))
def test_normalising_twice_changes_nothing_in_long_texts(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=200, deadline=None, database=None)
@given(COMPLETIONS, st.sampled_from([True, False, None]))
def test_rewards_stay_in_their_range_on_any_text(text: str, correct: bool | None) -> None:
    rollout = Rollout("p", 0, (), tuple(range(len(text) % 5000)), None, text[:20_000], "stop", 0)
    group = Group(Problem("p", "", "5", "s"), (rollout, rollout), (Verdict(correct, None, "r"),) * 2)
    for name, term in TERMS.items():
        for value in term(group):
            assert value is None or -1.0 <= value <= 1.0, name


def test_bombs_end_in_time_and_leave_the_parent_small(shared_data: Path, tmp_path: Path) -> None:
    before = resident_bytes()
    out = tmp_path / "out.jsonl"
    totals = grade_file(shared_data / "grading/bombs.jsonl.gz", out, workers=2, timeout=5)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    with gzip.open(shared_data / "grading/bombs.jsonl.gz", "rt") as lines:
        names = [json.loads(line)["name"] for line in lines]
    assert len(rows) == len(names) == 85
    assert totals.seconds < 60
    assert [row["id"] for row in rows if row["ms"] > 6000] == []
    assert resident_bytes() - before < 200 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_repeated_and_numeric_answers_are_graded_fast() -> None:
    rows = [
        ("\\frac{3}{4}", f"thus the answer is \\boxed{{{value}}}") for value in (0.75, "3/4", "\\dfrac34", 12, "-0.5")
    ]
    with Grader() as grader:
        for row in rows:
            grader.grade(*row)
        started = time.process_time()
        for _ in range(2000):
            for gold, completion in rows:
                grader.submit(gold, completion).result()
        rate = 10_000 / (time.process_time() - started)
    assert rate > 10_000  # 20,000 on a quiet core; benchmarks/grading.py measures it
