"""The winner's curse: what the best of equally good checkpoints scores, and a fair score for the chosen one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions


def expected_best(accuracy: float, num_problems: int, num_checkpoints: int) -> float:
    """Expected best of `num_checkpoints` single-sample results when each truly scores `accuracy` (exact, binomial).

    `expected_best(0.30, 30, 21)` is about 0.463: the paper's AIME24 headline is 0.467.
    """
    below = distributions.binom.cdf(np.arange(num_problems), num_problems, accuracy) ** num_checkpoints
    return float((1.0 - below).sum() / num_problems)  # E[max] = sum over x >= 1 of P(max >= x)


def chance_of_best(correct: int, accuracy: float, num_problems: int, num_checkpoints: int) -> float:
    """Chance that the best of `num_checkpoints` results reaches `correct` when each truly scores `accuracy`."""
    return float(1.0 - distributions.binom.cdf(correct - 1, num_problems, accuracy) ** num_checkpoints)


def held_out_best(correct: ArrayLike, num_splits: int = 200, seed: int = 0) -> float:
    """Mean score of the winner on samples that did not choose it: half of the samples choose, the other half score.

    `correct` [m, n, k] holds the verdicts of m checkpoints; k is at least 2. Ties share the score.
    """
    verdicts = np.asarray(correct, dtype=float)
    k = verdicts.shape[2]
    assert k >= 2, "choosing and scoring need a sample each"
    generator, kept = np.random.default_rng(seed), []
    for _ in range(num_splits):
        order = generator.permutation(k)
        chooser = verdicts[:, :, order[: k // 2]].mean(axis=(1, 2))
        scorer = verdicts[:, :, order[k // 2 :]].mean(axis=(1, 2))
        kept.append(scorer[chooser == chooser.max()].mean())
    return float(np.mean(kept))
