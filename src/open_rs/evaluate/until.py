"""Sampling until the score is known well enough: samples double while the sampling error is above a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from open_rs import stats
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.result import BenchmarkResult, Evaluation
from open_rs.types import UserError

FIRST_SAMPLES = 4
MOST_SAMPLES = 1024


def until(target: float, protocol: Protocol, names: list[str], run: Callable[[Protocol], Evaluation]) -> Evaluation:
    """Call `run` with more samples of each set until its sampling error is at most `target` (a share, not points).

    Only the sampling error can be lowered by samples; the error from having these problems and no others stays. Greedy
    sampling can't be extended. Raises UserError for a target that isn't positive.
    """
    if target <= 0 or protocol.temperature == 0:
        raise UserError("--until-se: needs a target above 0 points and a temperature above 0")
    samples = {name: max(FIRST_SAMPLES, protocol.num_samples(name)) for name in names}
    while True:
        evaluation = run(replace(protocol, samples_of=samples))
        wanted = {name: _enough(evaluation.benchmarks[name], target) for name in names}
        if all(wanted[name] <= samples[name] for name in names):
            return evaluation
        samples = {name: max(samples[name], wanted[name]) for name in names}


def _enough(result: BenchmarkResult, target: float) -> int:
    """Samples that should bring the error down to the target; at most a doubling, for it is an estimate."""
    error = stats.sampling_error(result.scores, result.num_samples)
    if error <= target:
        return result.k
    return min(MOST_SAMPLES, 2 * result.k, int(1.05 * result.k * (error / target) ** 2) + 1)
