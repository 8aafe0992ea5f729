"""Golds are corrected by kind, unsolvable problems are named, and a completion's text shows what went wrong in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from open_rs.evaluate.benchmarks import load_sets
from open_rs.evaluate.diagnostics import is_foreign, is_looping, read_signs
from open_rs.evaluate.golds import audit, correct_gold, why_unsolvable
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.window import fit
from open_rs.prompts import Prompt
from open_rs.types import Problem, UserError


@pytest.mark.parametrize(
    ("gold", "corrected"),
    [
        ("4.5e33", "4.5 \\times 10^{33}"),
        ("1e-5", "1 \\times 10^{-5}"),
        ("-2.7778e-6", "-2.7778 \\times 10^{-6}"),
        ("7E+3", "7 \\times 10^{3}"),
        ("np.arcsin(10/13)", "\\arcsin(10/13)"),
        ("math.sqrt(2)", "\\sqrt(2)"),
        ("-1./3", "-1/3"),
        ("$221,$8$", "221, 8"),
        ("e^{t} / 3", "e^{t} / 3"),
        ("2e", "2e"),
        ("$\\frac{27}{2}$", "$\\frac{27}{2}$"),
        ("$1$ and $2$", "$1$ and $2$"),
        ("1.5/2", "1.5/2"),
    ],
)
def test_a_gold_is_written_as_a_mathematician_would(gold: str, corrected: str) -> None:
    assert correct_gold(gold) == corrected


def test_a_relay_problem_is_unsolvable_and_a_pentagon_of_that_name_is_not() -> None:
    relay = Problem("a", "Let $T=T N Y W R$. Compute $T$.", "1", "x")
    packed = Problem("b", "Let T = TNYWR. Compute T.", "1", "x")
    pentagon = Problem("c", "Let $T=(0,0), N=(2,0)$. Compute the area of pentagon $T N Y W R$.", "20", "x")
    assert [bool(why_unsolvable(problem)) for problem in (relay, packed, pentagon)] == [True, True, False]


def test_the_audit_finds_what_is_known_of_the_benchmarks(shared_data: Path) -> None:
    sets = load_sets(["minerva", "olympiadbench", "math_500", "aime24"], shared_data / "benchmarks").problems
    found = {name: audit(tuple(problems)) for name, problems in sets.items()}
    powers = Counter("times" in new for _, new in found["minerva"].corrected.values())
    assert powers == {True: 58, False: len(found["minerva"].corrected) - 58}
    assert len(found["olympiadbench"].unsolvable) == 15
    assert not found["math_500"].corrected
    assert not found["aime24"].corrected


PROSE = "We are given that the triangle has sides 3, 4 and 5, so by Pythagoras it is right-angled. "


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("Wait, let me check. " * 200, True),
        (PROSE + "So x = 2. " * 300, True),
        (" ".join(f"{PROSE[: 20 + i % 40]} {i * i % 97} + {i}" for i in range(80)), False),
        ("the the the", False),
    ],
    ids=["a sentence again and again", "a loop at the end", "prose and sums", "too short to tell"],
)
def test_a_loop_is_seen(text: str, looping: bool) -> None:
    assert is_looping(text) is looping


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("The answer is 4.", False),
        ("因此答案是 4, which is the sum", True),
        ("Also ist die Antwort für das Dreieck größer", False),
        ("\\alpha + β = π, so ∑ x ≤ 3", False),
        ("", False),
    ],
    ids=["english", "chinese", "german", "symbols", "nothing"],
)
def test_another_script_is_seen_and_symbols_are_not(text: str, foreign: bool) -> None:
    assert is_foreign(text) is foreign


def test_an_answer_left_in_the_reasoning_is_seen() -> None:
    assert read_signs("so \\boxed{4}", reasoning_open=True).answer_only_in_reasoning
    assert not read_signs("so \\boxed{4}</think> \\boxed{4}", reasoning_open=True).answer_only_in_reasoning


@pytest.mark.parametrize(
    ("text", "boxed"),
    [("so \\boxed{4}", True), ("The answer is 4.", False), ("<think>\\boxed{4}", False), ("", False)],
    ids=["in a box", "in prose", "only in open reasoning", "nothing"],
)
def test_an_answer_outside_a_box_is_seen(text: str, boxed: bool) -> None:
    assert read_signs(text, reasoning_open=False).boxed is boxed


def prompts(*lengths: int) -> dict[str, Prompt]:
    return {f"p{n}": Prompt(f"p{n}", (), "", (0,) * n) for n in lengths}


def test_the_limit_shrinks_to_the_context_and_long_prompts_count_as_wrong() -> None:
    fitted = fit(Protocol("test", max_tokens=1000), prompts(100, 400, 600), 1000)
    assert (fitted.protocol.max_tokens, fitted.too_long) == (600, {"p600"})
    assert len(fitted.warnings) == 2


def test_nothing_changes_where_everything_fits_or_the_context_is_unknown() -> None:
    protocol = Protocol("test", max_tokens=100)
    assert fit(protocol, prompts(100), 1000).protocol == fit(protocol, prompts(100), None).protocol == protocol


def test_a_context_that_holds_no_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="context of 64 tokens"):
        fit(Protocol("test"), prompts(100), 64)
