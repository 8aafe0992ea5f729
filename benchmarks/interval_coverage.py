"""Claim: the clustered interval of `open_rs.stats` covers 93 to 97 %, and the usual ones do not.

Simulates evaluations of n problems with k samples each, whose difficulties vary as a beta distribution (U-shaped, flat,
humped) or as a logit-normal one, and counts how often each method's 95 % interval holds the true mean accuracy.
Last line: `figure: LOWEST HIGHEST`, the range of our coverage over all cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from scipy import stats as distributions

from open_rs.stats import Interval, over_problems, paired_error

PROBLEMS, SAMPLES, MEANS = (30, 272), (4, 16), (0.1, 0.3, 0.8)
BOOTSTRAP_DRAWS = 1_000
Bounds = tuple[NDArray, NDArray]  # [R], [R]


def beta(concentration: float) -> Callable[[np.random.Generator, float, tuple[int, int]], NDArray]:
    return lambda random, mean, size: random.beta(mean * concentration, (1 - mean) * concentration, size)


def logit_normal(random: np.random.Generator, mean: float, size: tuple[int, int]) -> NDArray:
    """Logits of standard deviation 2, their centre solved so that the accuracy averages `mean`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    centre = float(optimize.brentq(lambda c: float((weights / (1 + np.exp(-(c + 2 * nodes)))).sum() - mean), -15, 15))  # pyright: ignore[reportArgumentType]
    return 1 / (1 + np.exp(-(centre + 2 * random.standard_normal(size))))


def ours(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    found = [over_problems(row, k) for row in scores]
    return np.array([i.low for i in found]), np.array([i.high for i in found])


def pooled_wilson(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """All n * k samples as if they were independent."""
    return wilson(scores.mean(axis=1), np.full(len(scores), scores.shape[1] * k), 1.96)


def normal(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """Mean plus or minus 1.96 standard errors over problems (Miller 2024, arXiv 2411.00640)."""
    mean, error = moments(scores)
    return mean - 1.96 * error, mean + 1.96 * error


def student(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    mean, error = moments(scores)
    quantile = distributions.t.ppf(0.975, scores.shape[1] - 1)
    return mean - quantile * error, mean + quantile * error


def bootstrap(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """Percentiles of means over resampled problems."""
    n = scores.shape[1]
    weights = random.multinomial(n, np.full(n, 1 / n), BOOTSTRAP_DRAWS) / n  # [B, n]
    low, high = np.quantile(scores @ weights.T, [0.025, 0.975], axis=1)
    return low, high


def wilson_normal(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """Wilson with the effective number of trials, but the normal quantile and the plain variance."""
    return wilson(scores.mean(axis=1), effective_trials(scores, k), 1.96)


def wilson_student(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """The same with Student's quantile, as inspect_ai's clustered `ci_wilson`; ours adds half an invented problem."""
    quantile = float(distributions.t.ppf(0.975, scores.shape[1] - 1))
    return wilson(scores.mean(axis=1), effective_trials(scores, k), quantile)


def korn_graubard(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """Clopper-Pearson with the effective number of trials (Korn & Graubard 1998)."""
    trials = effective_trials(scores, k)
    right = scores.mean(axis=1) * trials
    low = distributions.beta.ppf(0.025, np.maximum(right, 1e-9), trials - right + 1)
    high = distributions.beta.ppf(0.975, right + 1, np.maximum(trials - right, 1e-9))
    return np.where(right > 0, low, 0.0), np.where(right < trials, high, 1.0)


def logit(scores: NDArray, k: int, random: np.random.Generator) -> Bounds:
    """Student's interval on the log-odds; Wilson where all or none are right."""
    mean, error = moments(scores)
    inside = np.clip(mean, 1e-6, 1 - 1e-6)
    half = distributions.t.ppf(0.975, scores.shape[1] - 1) * error / (inside * (1 - inside))
    centre = np.log(inside / (1 - inside))
    extreme = wilson(mean, np.full(len(mean), scores.shape[1]), 1.96)
    plain = (mean > 0) & (mean < 1)
    return (
        np.where(plain, 1 / (1 + np.exp(-(centre - half))), extreme[0]),
        np.where(plain, 1 / (1 + np.exp(-(centre + half))), extreme[1]),
    )


def moments(scores: NDArray) -> tuple[NDArray, NDArray]:
    return scores.mean(axis=1), scores.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])


def effective_trials(scores: NDArray, k: int) -> NDArray:
    mean, error = moments(scores)
    n = scores.shape[1]
    trials = np.divide(mean * (1 - mean), error**2, out=np.full(len(mean), float(n)), where=error > 0)
    return np.minimum(trials, n * k)


def wilson(mean: NDArray, trials: NDArray, quantile: float) -> Bounds:
    square = quantile**2
    centre = (mean + square / (2 * trials)) / (1 + square / trials)
    half = quantile / (1 + square / trials) * np.sqrt(mean * (1 - mean) / trials + square / (4 * trials**2))
    return centre - half, centre + half


def simulate(evaluations: int, seed: int) -> list[dict[str, Any]]:
    """Coverage and mean width of every method in every cell."""
    rows: list[dict[str, Any]] = []
    for difficulty, draw in DIFFICULTIES.items():
        for n in PROBLEMS:
            for k in SAMPLES:
                for mean in MEANS:
                    random = np.random.default_rng([seed, n, k, int(100 * mean), len(difficulty)])
                    scores = random.binomial(k, draw(random, mean, (evaluations, n))) / k  # [R, n]
                    for method, interval in METHODS.items():
                        low, high = interval(scores, k, random)
                        inside = (low <= mean) & (mean <= high)
                        rows.append(
                            {
                                "method": method,
                                "difficulty": difficulty,
                                "n": n,
                                "k": k,
                                "mean": mean,
                                "coverage": float(inside.mean()),
                                "width": float((high - low).mean()),
                            }
                        )
    return rows


def simulate_pairs(evaluations: int, seed: int) -> list[dict[str, Any]]:
    """Coverage and width of intervals for a difference, ours and plain Student, with equal and unequal sides."""
    rows: list[dict[str, Any]] = []
    for difficulty, draw in DIFFICULTIES.items():
        for n, k, mean, shift in product(PROBLEMS, (4, 8, 16), MEANS, (0.0, 0.5)):
            random = np.random.default_rng([seed, n, k, int(100 * mean), int(10 * shift), len(difficulty)])
            many = draw(random, mean, (1, 1_000_000))
            true = float((improve(many, shift) - many).mean())
            old_difficulty = draw(random, mean, (evaluations, n))
            old = random.binomial(k, old_difficulty) / k  # [R, n]
            new = random.binomial(k, improve(old_difficulty, shift)) / k
            found = [paired_interval(a, b, k) for a, b in zip(new, old, strict=True)]
            for method, (low, high) in {
                "ours, paired": (np.array([i.low for i in found]), np.array([i.high for i in found])),
                "Student on paired differences": student(new - old, k, random),
            }.items():
                rows.append(
                    {
                        "method": method,
                        "difficulty": difficulty,
                        "n": n,
                        "k": k,
                        "mean": mean,
                        "shift": shift,
                        "coverage": float(((low <= true) & (true <= high)).mean()),
                        "width": float((high - low).mean()),
                        "zero_width": float((high - low <= 0).mean()),
                    }
                )
    return rows


def improve(difficulty: NDArray, shift: float) -> NDArray:
    """Raise every log-odds by `shift`."""
    odds = difficulty / np.maximum(1 - difficulty, 1e-300) * np.exp(shift)
    return 1 - 1 / (1 + odds)


def paired_interval(new: NDArray, old: NDArray, k: int) -> Interval:
    """The interval alone: the exact p value would take longer than everything else here."""
    error = paired_error(new, old, np.full(len(new), k), np.full(len(old), k))
    half = float(distributions.t.ppf(0.975, len(new) - 1)) * error
    value = float((new - old).mean())
    return Interval(value - half, value + half)


def print_methods(rows: list[dict[str, Any]]) -> None:
    print(f"{'method':<48}{'lowest':>8}{'highest':>9}{'outside 93-97 %':>17}{'mean width':>12}")
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        coverage = np.array([row["coverage"] for row in mine])
        outside = int(((coverage < 0.93) | (coverage > 0.97)).sum())
        width = float(np.mean([row["width"] for row in mine]))
        cells = f"{outside} of {len(mine)}"
        print(f"{method:<48}{coverage.min():>8.3f}{coverage.max():>9.3f}{cells:>17}{width:>12.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluations", type=int, default=2_000, help="simulated evaluations a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = simulate(options.evaluations, options.seed)
    pairs = simulate_pairs(max(100, options.evaluations // 5), options.seed)
    slack = 3 * np.sqrt(0.95 * 0.05 / options.evaluations)
    print(f"{options.evaluations} simulated evaluations a cell; a simulated coverage is known to +-{slack:.3f}")
    print_methods(rows)
    print(f"differences, {max(100, options.evaluations // 5)} simulated pairs a cell")
    print_methods(pairs)
    if options.json:
        value = {"evaluations": options.evaluations, "seed": options.seed, "rows": rows, "pairs": pairs}
        options.json.write_text(json.dumps(value, indent=1) + "\n")
    chosen = [row["coverage"] for row in rows if row["method"] == "ours"]
    print(f"figure: {min(chosen):.4f} {max(chosen):.4f}")


DIFFICULTIES = {
    "U-shaped": beta(0.5),
    "skewed": beta(1.0),
    "flat": beta(2.0),
    "humped": beta(5.0),
    "logit": logit_normal,
}
METHODS: dict[str, Callable[[NDArray, int, np.random.Generator], Bounds]] = {
    "ours": ours,
    "pooled Wilson (samples as independent)": pooled_wilson,
    "normal (mean +- 1.96 standard errors)": normal,
    "Student": student,
    "bootstrap percentile over problems": bootstrap,
    "Wilson, effective trials, normal quantile": wilson_normal,
    "Wilson, effective trials, Student's quantile": wilson_student,
    "Korn-Graubard": korn_graubard,
    "Student on log-odds": logit,
}

if __name__ == "__main__":
    main()
