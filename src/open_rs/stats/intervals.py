"""Confidence intervals for an accuracy measured on problems that differ in difficulty, and the errors behind them.

Chosen by simulation: `benchmarks/interval_coverage.py`; `docs/evaluation.md` names the rejected ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as distributions

CONFIDENCE = 0.95
INVENTED_PROBLEMS = 10.0  # at intraclass correlation 1; what a draw of easy problems hides of the variance
LEAST_CORRELATION = 0.05  # below it, the degrees of freedom no longer grow


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, `low <= high`."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def wilson(correct: float, total: float, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval for `correct` of `total` independent trials (Wilson 1927).

    `wilson(9, 30)` is about (0.167, 0.479).
    """
    assert total > 0, "an interval needs at least one trial"
    quantile = float(distributions.norm.ppf((1 + confidence) / 2))
    return _score_interval(correct / total, total, quantile)


def jeffreys(correct: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Equal-tailed interval of the posterior Beta(correct + 1/2, wrong + 1/2); it ends at 0 or 1 where all agree.

    Shorter than Wilson's near 0 and 1 (Brown, Cai and DasGupta 2001). `jeffreys(0, 8)` is about (0, 0.262).
    """
    assert 0 <= correct <= total and total > 0, "an interval needs at least one trial"
    tail = (1 - confidence) / 2
    low, high = distributions.beta.ppf((tail, 1 - tail), correct + 0.5, total - correct + 0.5)
    return Interval(0.0 if correct == 0 else float(low), 1.0 if correct == total else float(high))


def over_problems(scores: ArrayLike, samples: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Interval for the mean score on problems like these: problems are the clusters, their samples are not independent.

    `scores` [n] in [0, 1], `samples` [n] the samples behind each. With one sample a problem this is Wilson's interval.
    Otherwise it has Wilson's form, with the effective number of trials in place of n * k and Student's quantile. Both
    follow the intraclass correlation: where problems differ much, a lucky draw of them hides variance, so the variance
    takes in up to ten invented problems; where they differ little, the binomial tells it well. Never of zero width.
    """
    score, sample = _columns(scores, samples)
    mean, n = float(score.mean()), len(score)
    if n == 1 or (sample == 1).all():
        return wilson(float(score.sum()), n, confidence)
    correlation = _intraclass_correlation(score, sample)
    degrees = (n - 1) / np.sqrt(max(correlation, LEAST_CORRELATION))
    quantile = float(distributions.t.ppf((1 + confidence) / 2, degrees))
    return _score_interval(mean, _effective_trials(score, sample, INVENTED_PROBLEMS * correlation), quantile)


def standard_error(scores: ArrayLike) -> float:
    """Standard error of the mean score over problems: sampling and choice of problems together."""
    score = np.asarray(scores, dtype=float)
    return float(score.std(ddof=1) / np.sqrt(len(score))) if len(score) > 1 else float("nan")


def sampling_error(scores: ArrayLike, samples: ArrayLike) -> float:
    """The part of the standard error that more samples would remove; NaN with one sample a problem."""
    score, sample = _columns(scores, samples)
    if (sample < 2).any():
        return float("nan")
    return float(np.sqrt((score * (1 - score) / (sample - 1)).sum()) / len(score))


def problem_error(scores: ArrayLike, samples: ArrayLike) -> float:
    """The part of the standard error that only more problems would remove; NaN with one sample a problem."""
    return float(np.sqrt(np.maximum(0.0, standard_error(scores) ** 2 - sampling_error(scores, samples) ** 2)))


def _intraclass_correlation(score: NDArray, sample: NDArray) -> float:
    """How alike the samples of one problem are, in [0, 1]; the samples a problem are averaged harmonically."""
    each = float(len(score) / (1 / sample).sum())
    design_effect = len(score) * each / _effective_trials(score, sample, 0.0)
    return float(np.clip((design_effect - 1) / (each - 1), 0.0, 1.0))


def _effective_trials(score: NDArray, sample: NDArray, invented: float) -> float:
    """How many independent trials would know the mean as well as these clusters do; between one and n * k."""
    mean, n = float(score.mean()), len(score)
    if mean in (0.0, 1.0):
        return n
    trials = float(n * n / (1 / sample).sum())  # n * k, by the harmonic mean where k differs
    inside = (n * mean + 0.5) / (n + 1)
    greatest = inside * (1 - inside)
    between = ((score - mean) ** 2).sum() + invented * greatest
    variance = max(between / (n - 1 + invented) / n, greatest / trials)
    return min(mean * (1 - mean) / variance, trials)


def _score_interval(mean: float, trials: float, quantile: float) -> Interval:
    square = quantile * quantile
    centre = (mean + square / (2 * trials)) / (1 + square / trials)
    half = quantile / (1 + square / trials) * np.sqrt(mean * (1 - mean) / trials + square / (4 * trials * trials))
    # At 0 and 1 the formula meets its mean exactly; rounding must not leave it outside.
    return Interval(float(min(max(0.0, centre - half), mean)), float(max(min(1.0, centre + half), mean)))


def _columns(scores: ArrayLike, samples: ArrayLike) -> tuple[NDArray, NDArray]:
    score, sample = np.asarray(scores, dtype=float), np.asarray(samples, dtype=float)
    assert score.ndim == 1 and len(score) > 0, "scores: one number a problem, at least one problem"
    assert ((score >= 0) & (score <= 1)).all(), "scores lie in [0, 1]"
    sample = np.broadcast_to(sample, score.shape)
    assert (sample >= 1).all(), "a score needs at least one sample"
    return score, sample
