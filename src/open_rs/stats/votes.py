"""What several samples of one problem are worth together: unbiased pass@k and majority votes over subsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


def pass_at_k(correct: ArrayLike, samples: ArrayLike, k: int) -> NDArray | None:
    """Chance [n] that at least one of k samples is right, unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    `correct` [n] right samples of `samples` [n] drawn. None where some problem has fewer than k samples: the estimate
    does not exist. `pass_at_k([1], [2], 1)` is 0.5.
    """
    assert k >= 1, "pass@k starts at k = 1"
    right, drawn = np.asarray(correct, dtype=int), np.asarray(samples, dtype=int)
    drawn = np.broadcast_to(drawn, right.shape)
    if (drawn < k).any():
        return None
    return np.array([1.0 - _all_wrong(int(d), int(r), k) for r, d in zip(right, drawn, strict=True)])


def _all_wrong(drawn: int, right: int, k: int) -> float:
    """Share of k-subsets without a right sample: C(drawn - right, k) / C(drawn, k), as a product."""
    if drawn - right < k:
        return 0.0
    return float(np.prod(1.0 - k / np.arange(drawn - right + 1, drawn + 1)))


def majority_curve(answers: Sequence[str | None], correct: Sequence[bool]) -> NDArray:
    """Chance [K] that the most frequent answer of k of these K samples is right, for k = 1 .. K, over all subsets.

    Right samples vote together, however they spell the answer; None does not vote; a tie is shared equally among its
    answers. Exact: subsets are counted by generating functions, not sampled.
    """
    right = sum(correct)
    others = Counter(a for a, c in zip(answers, correct, strict=True) if not c and a is not None)
    silent = len(answers) - right - sum(others.values())
    total = len(answers)
    if right == 0:
        return np.zeros(total)
    wins = np.zeros(total + 1)
    for votes in range(1, right + 1):
        wins += _shift(_shares(others, votes, total), votes) * _weights(right)[votes]
    wins = np.convolve(wins, _weights(silent))[: total + 1]
    return wins[1:] / _weights(total)[1:]


def _shares(others: Counter[str], votes: int, total: int) -> NDArray:
    """Weight [total + 1] of drawing d votes for wrong answers, none above `votes`, divided among the tied answers."""
    by_ties = np.zeros((1 + sum(size >= votes for size in others.values()), total + 1))  # [ties + 1, drawn]
    by_ties[0, 0] = 1.0
    for size in others.values():
        weights, drawn = _weights(size), by_ties
        by_ties = sum((_shift(drawn, i) * weights[i] for i in range(min(size + 1, votes))), np.zeros_like(drawn))
        if size >= votes:
            by_ties[1:] += _shift(drawn, votes)[:-1] * weights[votes]
    return by_ties.T @ (1.0 / np.arange(1, len(by_ties) + 1))


def _weights(size: int) -> NDArray:
    """Binomial coefficients C(size, i) / 2^size, scaled so that products of them stay representable."""
    i = np.arange(size + 1)
    return np.exp(gammaln(size + 1) - gammaln(i + 1) - gammaln(size - i + 1) - size * np.log(2.0))


def _shift(values: NDArray, by: int) -> NDArray:
    """Multiply the polynomials along the last axis by x^by; what leaves the axis can't be drawn."""
    if by == 0:
        return values
    moved = np.zeros_like(values)
    moved[..., by:] = values[..., :-by]
    return moved
