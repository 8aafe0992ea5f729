"""Paired statistics agree with scipy, statsmodels and brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests

from open_rs.stats import (
    detectable_difference,
    holm,
    macro_difference,
    paired_difference,
    sign_flip_p,
    unpaired_interval,
)

RANDOM = np.random.default_rng(7)


def by_brute_force(differences: np.ndarray) -> float:
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    return float(np.mean([total >= abs(differences.sum()) - 1e-12 for total in sums]))


@pytest.mark.parametrize("k", [1, 4, 8, 16])
def test_the_sign_flip_p_is_the_share_of_all_sign_patterns(k: int) -> None:
    for _ in range(10):
        differences = (RANDOM.binomial(k, 0.6, 9) - RANDOM.binomial(k, 0.4, 9)) / k
        assert sign_flip_p(differences, k) == pytest.approx(by_brute_force(differences), abs=1e-12)


def test_sampled_flips_agree_with_the_exact_ones_and_with_scipy() -> None:
    differences = (RANDOM.binomial(8, 0.55, 40) - RANDOM.binomial(8, 0.45, 40)) / 8
    exact = sign_flip_p(differences, 8)
    by_scipy = distributions.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(0)
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.015)
    assert by_scipy == pytest.approx(exact, abs=0.015)


def test_one_sample_each_is_the_exact_mcnemar_test() -> None:
    new, old = np.array([1] * 12 + [0] * 5 + [1] * 20), np.array([0] * 12 + [1] * 5 + [1] * 20)
    assert paired_difference(new, old).p_value == pytest.approx(distributions.binomtest(5, 17).pvalue)


def test_the_paired_interval_is_students_but_for_one_invented_pair() -> None:
    new, old = RANDOM.binomial(8, 0.6, 400) / 8, RANDOM.binomial(8, 0.5, 400) / 8
    found = paired_difference(new, old, 8, 8)
    reference = distributions.ttest_rel(new, old).confidence_interval()
    assert (found.ci95.low, found.ci95.high) == pytest.approx((reference.low, reference.high), rel=0.02)
    assert found.value == pytest.approx((new - old).mean())


def test_two_equal_columns_leave_doubt_and_no_evidence() -> None:
    found = paired_difference([1.0] * 30, [1.0] * 30, 8, 8)
    assert found.value == 0
    assert found.ci95.width > 0
    assert found.p_value == 1


def test_pairing_narrows_the_interval_when_difficulty_is_shared() -> None:
    difficulty = RANDOM.beta(0.5, 0.5, 200)
    new, old = RANDOM.binomial(8, difficulty) / 8, RANDOM.binomial(8, difficulty) / 8
    assert unpaired_interval(new, old, 8, 8).width > 1.3 * paired_difference(new, old, 8, 8).ci95.width


@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["no effect", "an effect"])
def test_the_paired_interval_covers(shift: float) -> None:
    """Coverage of the mean difference over 1,000 simulated pairs of evaluations, against the mean of many problems."""
    generator = np.random.default_rng(3)

    def improve(p: np.ndarray) -> np.ndarray:
        odds = p / (1 - p) * np.exp(shift)
        return odds / (1 + odds)

    true = np.mean(improve(p := generator.beta(0.6, 1.4, 1_000_000).clip(1e-9, 1 - 1e-9)) - p)
    difficulty = generator.beta(0.6, 1.4, (1_000, 100)).clip(1e-9, 1 - 1e-9)
    new, old = generator.binomial(8, improve(difficulty)) / 8, generator.binomial(8, difficulty) / 8
    inside = [true in paired_difference(a, b, 8, 8).ci95 for a, b in zip(new, old, strict=True)]
    assert 0.93 - 0.02 <= np.mean(inside) <= 0.97 + 0.02


def test_holm_agrees_with_statsmodels() -> None:
    for _ in range(20):
        p_values = list(RANDOM.random(6) ** 3)
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_the_average_over_benchmarks_counts_each_once() -> None:
    small, large = ([1.0, 0.0], [0.0, 0.0], 1, 1), ([0.0] * 100, [0.0] * 100, 1, 1)
    assert macro_difference([small, large]).value == pytest.approx(0.25)


def test_a_detectable_difference_is_found_with_the_stated_power() -> None:
    error = 0.03
    draws = np.random.default_rng(0).normal(detectable_difference(error), error, 100_000)
    assert np.mean(draws > 1.96 * error) == pytest.approx(0.8, abs=0.01)
