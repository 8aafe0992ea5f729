"""Evaluations made of planted verdicts, for tests that need no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from open_rs.evaluate.result import BenchmarkResult, Evaluation, Sample


def planted(name: str, chances: Any, samples: int = 8, seed: int = 0, first: int = 0, **fields: Any) -> BenchmarkResult:
    """A benchmark whose problem i, numbered from `first`, is solved with chance `chances[i]`."""
    draw = np.random.default_rng(seed)
    rows = tuple(
        tuple(Sample(bool(right), str(int(right)), 40 + 10 * int(right), reason="equal") for right in row)
        for row in draw.random((len(chances), samples)) < np.asarray(chances)[:, None]
    )
    return BenchmarkResult(name, tuple(f"{name}:{first + i}" for i in range(len(chances))), rows, **fields)


def evaluation(model: str, *results: BenchmarkResult, protocol: Mapping[str, Any] | None = None) -> Evaluation:
    """The benchmarks as one evaluation; without a protocol its fingerprint is empty."""
    mark = {} if protocol is None else {"model": model, "protocol": dict(protocol)}
    return Evaluation(model, {result.name: result for result in results}, mark)
