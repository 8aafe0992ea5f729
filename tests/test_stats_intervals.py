"""Intervals agree with their references, cover what they promise and are never empty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from open_rs.stats import over_problems, problem_error, sampling_error, standard_error, wilson


@pytest.mark.parametrize(("correct", "total"), [(0, 30), (9, 30), (14, 30), (30, 30), (1, 1), (354, 675), (250, 500)])
def test_wilson_agrees_with_statsmodels(correct: int, total: int) -> None:
    low, high = proportion_confint(correct, total, method="wilson")
    found = wilson(correct, total)
    assert (found.low, found.high) == pytest.approx((max(0.0, low), min(1.0, high)), abs=1e-12)


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.8])
def test_wilson_covers_exactly_what_the_binomial_says(probability: float) -> None:
    """The coverage of our intervals, summed over every outcome, is that of the closed form in statsmodels."""
    outcomes = np.arange(31)
    chances = distributions.binom.pmf(outcomes, 30, probability)
    low, high = proportion_confint(outcomes, np.full(31, 30), method="wilson")
    expected = chances[(low <= probability) & (probability <= high)].sum()
    ours = sum(c for x, c in zip(outcomes, chances, strict=True) if probability in wilson(float(x), 30))
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.9 < expected < 0.99


@pytest.mark.parametrize("scores", [[0.0] * 30, [1.0] * 30, [0.5] * 30, [0.0], [1.0]], ids=str)
@pytest.mark.parametrize("samples", [1, 4, 64])
def test_no_interval_has_zero_width(scores: list[float], samples: int) -> None:
    if samples == 1 and 0.5 in scores:
        samples = 2
    found = over_problems(scores, samples)
    assert found.width > 0
    assert np.mean(scores) in found


def test_one_sample_a_problem_gives_wilson() -> None:
    assert over_problems([1, 0, 0, 1, 0], 1) == wilson(2, 5)


@pytest.mark.parametrize("num_problems", [30, 272])
@pytest.mark.parametrize("k", [4, 16])
@pytest.mark.parametrize("mean", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("concentration", [0.5, 2.0, 5.0])
def test_the_clustered_interval_covers_93_to_97_percent(
    num_problems: int, k: int, mean: float, concentration: float
) -> None:
    """2,000 simulated evaluations; the band is widened by the error of the simulation itself."""
    generator = np.random.default_rng([num_problems, k, int(100 * mean), int(10 * concentration)])
    difficulty = generator.beta(mean * concentration, (1 - mean) * concentration, (2_000, num_problems))
    scores = generator.binomial(k, difficulty) / k
    coverage = np.mean([mean in over_problems(row, k) for row in scores])
    assert 0.93 - 0.005 <= coverage <= 0.97 + 0.005


def test_sampling_and_problem_error_add_up_to_the_standard_error() -> None:
    generator = np.random.default_rng(0)
    scores = generator.binomial(16, generator.beta(0.5, 0.5, 200)) / 16
    assert sampling_error(scores, 16) ** 2 + problem_error(scores, 16) ** 2 == pytest.approx(
        standard_error(scores) ** 2
    )


def test_sampling_error_is_the_spread_of_repeated_evaluations_of_the_same_problems() -> None:
    generator = np.random.default_rng(1)
    difficulty = generator.beta(0.5, 0.5, 100)
    repeats = generator.binomial(8, difficulty, (4_000, 100)) / 8
    predicted = np.sqrt(np.mean([sampling_error(row, 8) ** 2 for row in repeats]))
    assert predicted == pytest.approx(repeats.mean(axis=1).std(), rel=0.05)


def test_errors_are_absent_where_one_sample_cannot_tell() -> None:
    assert np.isnan(sampling_error([1.0, 0.0], 1))
    assert np.isnan(problem_error([1.0, 0.0], 1))
