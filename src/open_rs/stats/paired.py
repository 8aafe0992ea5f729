"""Differences between two models on the same problems: interval, sign-flip test, Holm, detectable difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as distributions

from open_rs.stats.intervals import CONFIDENCE, Interval, over_problems

PSEUDO_PROBLEMS = (
    1.0  # weight of the invented pair of samples that keeps two equal columns from an interval of zero width
)
EXACT_STATES = 2_000_000  # lattice points up to which the sign-flip distribution is computed, not sampled
FLIPS = 20_000


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of (candidate - baseline) over the same problems; `p_value` is two-sided, by flipping signs per problem."""

    value: float
    ci95: Interval
    p_value: float
    standard_error: float
    num_problems: int


def paired_difference(
    candidate: ArrayLike, baseline: ArrayLike, candidate_samples: ArrayLike = 1, baseline_samples: ArrayLike = 1
) -> PairedDifference:
    """Difference of two score columns [n] of the same problems, in the same order, with the samples behind each.

    Student's interval on the differences per problem, whose variance includes one invented pair of samples, so that it
    is never of zero width. The difficulty of the problems cancels.
    """
    new, old = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
    assert new.shape == old.shape and new.ndim == 1 and len(new) > 0, "both sides need the same problems"
    new_samples, old_samples = (
        np.broadcast_to(np.asarray(s, dtype=int), new.shape) for s in (candidate_samples, baseline_samples)
    )
    difference = new - old
    error = paired_error(new, old, new_samples, old_samples)
    quantile = float(distributions.t.ppf((1 + CONFIDENCE) / 2, max(1, len(difference) - 1)))
    value = float(difference.mean())
    interval = Interval(max(-1.0, value - quantile * error), min(1.0, value + quantile * error))
    p_value = sign_flip_p(difference, _common_denominator(new_samples, old_samples))
    return PairedDifference(value, interval, p_value, error, len(difference))


def unpaired_interval(
    candidate: ArrayLike, baseline: ArrayLike, candidate_samples: ArrayLike, baseline_samples: ArrayLike
) -> Interval:
    """Interval for the difference as if the problems were unrelated."""
    new, old = np.asarray(candidate, dtype=float), np.asarray(baseline, dtype=float)
    return difference_of(
        float(new.mean()),
        over_problems(new, candidate_samples),
        float(old.mean()),
        over_problems(old, baseline_samples),
    )


def difference_of(new: float, new_interval: Interval, old: float, old_interval: Interval) -> Interval:
    """Interval for the difference of two independent values from the interval of each (Newcombe 1998, method 10)."""
    return Interval(
        new - old - math.hypot(new - new_interval.low, old_interval.high - old),
        new - old + math.hypot(new_interval.high - new, old - old_interval.low),
    )


def sign_flip_p(differences: ArrayLike, denominator: int | None = None, seed: int = 0) -> float:
    """Two-sided p that the sum of `differences` [n] is this large when every sign is a fair coin.

    Exact where `differences * denominator` are integers (scores of k samples have denominator k) and their lattice is
    small enough; else by `FLIPS` seeded flips, counting the observed one.
    """
    difference = np.asarray(differences, dtype=float)
    if denominator is not None:
        steps = np.rint(np.abs(difference) * denominator).astype(int)
        if len(steps) * (steps.sum() + 1) <= EXACT_STATES * 100 and steps.sum() <= EXACT_STATES:
            return _exact_p(steps, abs(int(np.rint(difference * denominator).sum())))
    return _sampled_p(difference, seed)


def macro_difference(
    columns: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]], seed: int = 0
) -> PairedDifference:
    """Difference of the averages over benchmarks (each benchmark counts once, as in Table 1's last column).

    Each column is (candidate, baseline, candidate_samples, baseline_samples) of one benchmark. Signs are flipped per
    problem within all benchmarks at once.
    """
    parts = [paired_difference(*column) for column in columns]
    weighted = np.concatenate(
        [
            (np.asarray(new, dtype=float) - np.asarray(old, dtype=float)) / (len(np.asarray(new)) * len(parts))
            for new, old, *_ in columns
        ]
    )
    value = float(np.mean([part.value for part in parts]))
    error = math.sqrt(sum(part.standard_error**2 for part in parts)) / len(parts)
    quantile = float(distributions.t.ppf((1 + CONFIDENCE) / 2, max(1, len(weighted) - len(parts))))
    interval = Interval(max(-1.0, value - quantile * error), min(1.0, value + quantile * error))
    return PairedDifference(value, interval, _sampled_p(weighted, seed), error, len(weighted))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for having tested several benchmarks (Holm 1979)."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def detectable_difference(standard_error: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true difference that a two-sided test at `alpha` finds with probability `power`, given its error."""
    return float((distributions.norm.ppf(1 - alpha / 2) + distributions.norm.ppf(power)) * standard_error)


def paired_error(new: NDArray, old: NDArray, new_samples: NDArray, old_samples: NDArray) -> float:
    """Standard error of the mean difference of scores [n], one invented pair of samples included."""
    n, difference = len(new), new - old
    inside = (n * (new.mean() + old.mean()) / 2 + 0.5) / (n + 1)
    one_pair = inside * (1 - inside) * float((1 / new_samples + 1 / old_samples).mean())
    squares = ((difference - difference.mean()) ** 2).sum() + PSEUDO_PROBLEMS * one_pair
    return float(np.sqrt(squares / (n - 1 + PSEUDO_PROBLEMS) / n))


def _common_denominator(*samples: NDArray) -> int | None:
    """The lattice that all scores lie on; None where it is too fine to be of use."""
    common = math.lcm(*(int(s) for s in np.unique(np.concatenate(samples))))
    return common if common <= EXACT_STATES else None


def _exact_p(steps: NDArray, observed: int) -> float:
    """P(|sum of +-steps| >= observed) from the whole distribution of the sum of the steps that keep their sign."""
    total = int(steps.sum())
    chance = np.zeros(total + 1)
    chance[0], reached = 1.0, 0
    for step in steps[steps > 0]:
        chance[: reached + step + 1] *= 0.5
        moved = chance[: reached + 1].copy()
        chance[step : reached + step + 1] += moved
        reached += int(step)
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(chance[sums >= observed].sum()))


def _sampled_p(difference: NDArray, seed: int) -> float:
    generator = np.random.default_rng(seed)
    observed = abs(difference.sum()) - 1e-12
    extreme = 0
    for _ in range(FLIPS // 1000):
        signs = generator.integers(0, 2, (1000, len(difference)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ difference) >= observed).sum())
    return (extreme + 1) / (FLIPS + 1)
