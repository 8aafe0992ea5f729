"""pass@k, majority votes and the winner's curse agree with enumeration."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from open_rs.stats import chance_of_best, expected_best, held_out_best, majority_curve, pass_at_k

RANDOM = np.random.default_rng(11)


@pytest.mark.parametrize(("right", "drawn"), [(0, 6), (1, 6), (3, 6), (6, 6), (2, 9)])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(right: int, drawn: int, k: int) -> None:
    verdicts = [True] * right + [False] * (drawn - right)
    found = pass_at_k([right], [drawn], k)
    assert found is not None
    assert found[0] == pytest.approx(np.mean([any(subset) for subset in combinations(verdicts, k)]))


def test_pass_at_k_is_absent_when_a_problem_has_fewer_samples() -> None:
    assert pass_at_k([1, 1], [8, 7], 8) is None


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    found = pass_at_k([1], [4096], 1024)
    assert found is not None
    assert found[0] == pytest.approx(0.25)


def majority_by_enumeration(answers: list[str | None], correct: list[bool], k: int) -> float:
    shares = []
    for subset in combinations(range(len(answers)), k):
        votes = Counter("right" if correct[i] else answers[i] for i in subset if answers[i] is not None)
        top = [answer for answer, count in votes.items() if count == max(votes.values())]
        shares.append(("right" in top) / len(top) if top else 0.0)
    return float(np.mean(shares))


def test_majority_votes_agree_with_enumeration() -> None:
    for _ in range(60):
        size = int(RANDOM.integers(1, 9))
        answers = [None if RANDOM.random() < 0.15 else str(RANDOM.integers(0, 4)) for _ in range(size)]
        correct = [answer == "0" for answer in answers]
        expected = [majority_by_enumeration(answers, correct, k) for k in range(1, size + 1)]
        assert majority_curve(answers, correct) == pytest.approx(expected, abs=1e-12)


def test_right_answers_vote_together_however_they_are_spelled() -> None:
    curve = majority_curve(["1/2", "0.5", "3", "3"], [True, True, False, False])
    assert curve[-1] == pytest.approx(0.5)


def test_the_vote_of_one_sample_is_its_accuracy() -> None:
    answers = [str(RANDOM.integers(0, 20)) for _ in range(64)]
    correct = [answer in ("0", "1", "2") for answer in answers]
    assert majority_curve(answers, correct)[0] == pytest.approx(np.mean(correct))


def test_the_best_of_21_equal_checkpoints_is_the_papers_headline() -> None:
    simulated = np.random.default_rng(0).binomial(30, 0.3, (20_000, 21)).max(axis=1) / 30
    assert expected_best(0.3, 30, 21) == pytest.approx(simulated.mean(), abs=0.002)
    assert chance_of_best(14, 0.3, 30, 21) == pytest.approx((simulated >= 14 / 30 - 1e-9).mean(), abs=0.01)


def test_choosing_on_one_half_and_scoring_on_the_other_removes_the_curse() -> None:
    equal = np.random.default_rng(0).random((10, 40, 16)) < 0.3
    best = equal.mean(axis=(1, 2)).max()
    assert best > equal.mean() + 0.02
    assert held_out_best(equal) == pytest.approx(equal.mean(), abs=0.01)
