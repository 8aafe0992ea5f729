"""What each reward pays, held to worked examples."""

from __future__ import annotations

import math
from typing import Any

import pytest

from open_rs.rewards.terms import TERMS
from open_rs.types import Group, Problem, Rollout, UserError, Verdict


def group(*rows: tuple[str, int, bool | None]) -> Group:
    """Rollouts as (text, tokens, correct)."""
    problem = Problem("p", "1+1?", "2", "test")
    rollouts = tuple(
        Rollout("p", n, (), (7,) * tokens, None, text, "stop", 0) for n, (text, tokens, _) in enumerate(rows)
    )
    return Group(problem, rollouts, tuple(Verdict(correct, None, "test") for _, _, correct in rows))


def pay(name: str, text: str = "", tokens: int = 1, correct: bool | None = True, **params: Any) -> float | None:
    return TERMS[name](group((text, tokens, correct)), **params)[0]


@pytest.mark.parametrize(("correct", "reward"), [(True, 1.0), (False, 0.0), (None, None)])
def test_accuracy_is_the_verdict(correct: bool | None, reward: float | None) -> None:
    assert pay("accuracy", correct=correct) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("reasoning\n</think>\nanswer", 1.0),
        ("reasoning</think>answer", 0.0),
        ("a\n</think>\nb\n</think>\nc", 0.0),
        ("<think>\nreasoning\n</think>\nanswer", 1.0),
        ("", 0.0),
    ],
)
def test_format_wants_the_closing_tag_exactly_once(text: str, reward: float) -> None:
    assert pay("format", text) == reward


@pytest.mark.parametrize(
    ("tokens", "correct", "reward"),
    [
        (0, True, 1.0),
        (1792, True, 0.75),
        (3584, True, 0.5),
        (9999, True, 0.5),
        (0, False, -0.5),
        (1792, False, -0.25),
        (3584, False, 0.0),
        (9999, False, 0.0),
        (100, None, None),
    ],
)
def test_cosine_follows_the_paper(tokens: int, correct: bool | None, reward: float | None) -> None:
    assert pay("cosine", tokens=tokens, correct=correct) == pytest.approx(reward)


RELEASE = {
    "max_length": 1000,
    "length_unit": "characters",
    "clamp": False,
    "min_value_wrong": 0.0,
    "max_value_wrong": -0.5,
    "min_value_correct": 0.5,
    "max_value_correct": 1.0,
}


@pytest.mark.parametrize("characters", [0, 1, 250, 500, 999, 1000, 1500, 2000, 3000, 12_345])
@pytest.mark.parametrize("correct", [True, False])
def test_cosine_reproduces_the_release_exactly(characters: int, correct: bool) -> None:
    low, high = (0.5, 1.0) if correct else (-0.5, 0.0)
    expected = low + 0.5 * (high - low) * (1 + math.cos(characters / 1000 * math.pi))
    assert pay("cosine", "x" * characters, 3, correct, **RELEASE) == expected


def test_cosine_of_the_release_is_periodic_and_ours_is_not() -> None:
    assert pay("cosine", "x" * 2000, **RELEASE) == 1.0
    assert pay("cosine", tokens=2000, max_length=1000) == 0.5


def test_cosine_names_an_unknown_unit() -> None:
    with pytest.raises(UserError, match="length_unit"):
        pay("cosine", length_unit="words")


def test_tag_count_pays_a_share_for_each_tag_that_stands_once() -> None:
    text = "<think>\nhm\n</think>\n<answer>\n2\n</answer>"
    assert pay("tag_count", text) == 1.0
    assert pay("tag_count", text.removeprefix("<think>\n")) == 0.75
    assert pay("tag_count", text.removeprefix("<think>\n"), tags=["\n</think>\n", "\n<answer>\n", "\n</answer>"]) == 1.0
    assert pay("tag_count", text + text) == 0.0


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d", 1.0),
        ("First, a. Second, b.", 2 / 3),
        ("1. a\n2. b", 2 / 3),
        ("a", 0),
    ],
)
def test_reasoning_steps_count_up_to_three(text: str, reward: float) -> None:
    assert pay("reasoning_steps", text) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("text", "reward"),
    [("a b c d e", 0.0), ("a a a a a", -2 / 3), ("a b", 0.0), ("", 0.0), ("A b c a B c", -1 / 4)],
)
def test_repetition_is_fined_by_the_share_of_repeated_trigrams(text: str, reward: float) -> None:
    assert pay("repetition_penalty", text) == pytest.approx(reward)


def test_length_compares_within_the_group() -> None:
    rows = group(("", 100, True), ("", 200, True), ("", 300, True), ("", 100, False), ("", 300, False), ("", 200, None))
    assert TERMS["length"](rows) == [0.5, 0.0, -0.5, 0.0, -0.5, None]
    assert TERMS["length"](group(("", 5, True), ("", 5, False))) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "reward"), [(0, 0.0), (3072, 0.0), (3328, -0.5), (3584, -1.0), (9000, -1.0)], ids=str
)
def test_soft_overlong_falls_over_the_last_512_tokens(tokens: int, reward: float) -> None:
    assert pay("soft_overlong", tokens=tokens) == reward


@pytest.mark.parametrize(
    ("text", "language", "share"),
    [
        ("So the answer is four.", "en", 1.0),
        ("所以答案是四。", "en", 0.0),
        ("所以答案是四。", "zh", 1.0),
        ("So x is 4. 所以", "en", 0.5),
        ("Итак, ответ четыре", "ru", 1.0),
        ("Итак, ответ четыре", "en", 0.0),
        ("だから答えは四です", "ja", 1.0),
        ("그래서 답은 넷입니다", "ko", 1.0),
        ("Also ist die Antwort nicht vier, und das ist der Grund.", "en", 0.0),
        ("Donc la réponse est quatre et nous avons les preuves.", "en", 0.0),
        ("Donc la réponse est quatre et nous avons les preuves.", "fr", 1.0),
        ("The answer is $\\text{所以} = 4$ and \\[ \\alpha + \\beta \\] holds.", "en", 1.0),
        ("\\boxed{\\frac{1}{2}}", "en", 1.0),
        ("x + y = 2", "en", 1.0),
        ("", "en", 1.0),
        ("<think> Let α be the angle. </think>", "en", 1.0),
    ],
)
def test_language_is_the_share_of_words(text: str, language: str, share: float) -> None:
    assert pay("language", text, language=language) == pytest.approx(share)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(UserError, match="tlh"):
        pay("language", "Qapla'", language="tlh")


@pytest.mark.parametrize("name", ["accuracy", "cosine", "length"])
def test_terms_that_read_verdicts_score_nobody_on_an_unscorable_problem(name: str) -> None:
    assert TERMS[name](group(("a", 1, None), ("b", 2, None))) == [None, None]
