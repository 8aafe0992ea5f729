"""The outcome of an evaluation: every verdict by problem and sample, and the numbers that follow from them.

Legend: `n` problems, `k` samples a problem (which may differ from problem to problem).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_rs import stats
from open_rs.run_dir import RunDir
from open_rs.types import UserError

FORMAT = 1
RESULTS = "results.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """What is kept of one completion in `results.json`; its text stays in `completions.jsonl`."""

    correct: bool
    extracted: str | None = None
    tokens: int | None = None
    truncated: bool | None = False  # None where nobody said how it ended
    looping: bool = False
    foreign: bool = False
    answer_only_in_reasoning: bool = False
    outside_box: bool = False  # the answer was read from the prose around it
    reason: str = ""


DEFAULTS = {entry.name: entry.default for entry in fields(Sample)}


@dataclass(frozen=True)
class BenchmarkResult:
    """Verdicts of one benchmark: `samples[i]` of `problem_ids[i]`; `left_out` maps other problems to a reason."""

    name: str
    problem_ids: tuple[str, ...]  # [n]
    samples: tuple[tuple[Sample, ...], ...]  # [n][k]
    left_out: Mapping[str, str] = field(default_factory=dict)
    corrected_golds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    avg_with_unsolvable: float | None = None  # present where unsolvable problems were asked and left out of `avg`

    def __post_init__(self) -> None:
        assert len(self.problem_ids) == len(self.samples), "a problem without its samples"
        assert all(self.samples), "a problem without a single scored sample"

    @cached_property
    def num_samples(self) -> NDArray:  # [n]
        return np.array([len(row) for row in self.samples])

    @cached_property
    def num_correct(self) -> NDArray:  # [n]
        return np.array([sum(sample.correct for sample in row) for row in self.samples])

    @cached_property
    def scores(self) -> NDArray:  # [n]
        return self.num_correct / self.num_samples

    @property
    def k(self) -> int:
        """Samples that every problem has."""
        return int(self.num_samples.min())

    @property
    def avg(self) -> float:
        """avg@k: the mean over problems of the share of right samples."""
        return float(self.scores.mean())

    @cached_property
    def ci95(self) -> stats.Interval:
        return stats.over_problems(self.scores, self.num_samples)

    @cached_property
    def pass_at(self) -> dict[int, float]:
        """Unbiased pass@k for the powers of two up to k, and k itself."""
        values = {k: stats.pass_at_k(self.num_correct, self.num_samples, k) for k in _powers_of_two(self.k)}
        return {k: float(value.mean()) for k, value in values.items() if value is not None}

    @cached_property
    def majority_at(self) -> dict[int, float]:
        """maj@k on extracted answers, exact over subsets of the samples, for the same k as `pass_at`."""
        curves = [
            stats.majority_curve([s.extracted for s in row], [s.correct for s in row])[: self.k] for row in self.samples
        ]
        mean = np.mean(curves, axis=0)
        return {k: float(mean[k - 1]) for k in _powers_of_two(self.k)}

    @cached_property
    def diagnostics(self) -> dict[str, Any]:
        """Shares of completions with each sign, token counts, and how often the grader gave which reason."""
        every = [sample for row in self.samples for sample in row]
        reasons: dict[str, int] = {}
        for sample in every:
            reasons[sample.reason] = reasons.get(sample.reason, 0) + 1
        return {
            "completions": len(every),
            "truncated": _known_share([s.truncated for s in every]),
            "no_answer": _share(s.extracted is None for s in every),
            "answer_only_in_reasoning": _share(s.answer_only_in_reasoning for s in every),
            "outside_box": _share(s.outside_box for s in every),
            "looping": _share(s.looping for s in every),
            "foreign": _share(s.foreign for s in every),
            "tokens": _token_counts([s.tokens for s in every]),
            "tokens_right": _token_counts([s.tokens for s in every if s.correct]),
            "tokens_wrong": _token_counts([s.tokens for s in every if not s.correct]),
            "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        }

    def summary(self) -> dict[str, Any]:
        """The numbers of this benchmark, as `results.json` and `--json` give them."""
        sampling = stats.sampling_error(self.scores, self.num_samples)
        return {
            "n": len(self.problem_ids),
            "k": self.k,
            "avg": self.avg,
            "ci95": [self.ci95.low, self.ci95.high],
            "standard_error": _finite(stats.standard_error(self.scores)),
            "sampling_error": _finite(sampling),
            "problem_error": _finite(stats.problem_error(self.scores, self.num_samples)),
            "detectable_difference": _finite(stats.detectable_difference(float(np.sqrt(2)) * sampling)),
            "avg_with_unsolvable": self.avg_with_unsolvable,
            "pass_at": {str(k): value for k, value in self.pass_at.items()},
            "majority_at": {str(k): value for k, value in self.majority_at.items()},
            "diagnostics": self.diagnostics,
            "left_out": dict(self.left_out),
            "corrected_golds": {key: list(pair) for key, pair in self.corrected_golds.items()},
        }


@dataclass(frozen=True)
class Evaluation:
    """One model under one protocol. `fingerprint` names everything that moves a score; `warnings` what weakens it."""

    model: str
    benchmarks: Mapping[str, BenchmarkResult]
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def avg(self) -> float:
        """Unweighted mean over benchmarks, as the last column of the paper's Table 1."""
        return float(np.mean([result.avg for result in self.benchmarks.values()]))

    @property
    def ci95(self) -> stats.Interval:
        """Interval of `avg`: the half-widths of independent benchmarks add in squares (MOVER, Zou & Donner 2008)."""
        results = self.benchmarks.values()
        below = np.sqrt(sum((r.avg - r.ci95.low) ** 2 for r in results)) / len(results)
        above = np.sqrt(sum((r.ci95.high - r.avg) ** 2 for r in results)) / len(results)
        return stats.Interval(float(self.avg - below), float(self.avg + above))

    def summary(self) -> dict[str, Any]:
        """Everything but the verdicts of single samples."""
        return {
            "format": FORMAT,
            "model": self.model,
            "avg": self.avg,
            "ci95": [self.ci95.low, self.ci95.high],
            "benchmarks": {name: result.summary() for name, result in self.benchmarks.items()},
            "fingerprint": dict(self.fingerprint),
            "warnings": list(self.warnings),
        }

    def save(self, directory: Path) -> Path:
        """Write `results.json`: the summary and, under `samples`, one row a problem. Returns its path."""
        value = self.summary()
        for name, result in self.benchmarks.items():
            value["benchmarks"][name]["samples"] = {
                problem: [_short(sample) for sample in row]
                for problem, row in zip(result.problem_ids, result.samples, strict=True)
            }
        RunDir(directory).write_text(RESULTS, json.dumps(value, ensure_ascii=False, indent=1) + "\n")
        return directory / RESULTS

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read a result directory or a `results.json`. Raises UserError where there is none, or of another format."""
        file = path / RESULTS if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"{path}: no {RESULTS} here; give a directory that `open-rs evaluate` wrote")
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            assert value["format"] == FORMAT
            benchmarks = {name: _read_benchmark(name, part) for name, part in value["benchmarks"].items()}
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise UserError(
                f"{file}: not a result of this version of `open-rs evaluate` ({error!r}); run it again"
            ) from error
        return cls(value["model"], benchmarks, value["fingerprint"], tuple(value["warnings"]))


def _short(sample: Sample) -> dict[str, Any]:
    """A sample without the fields that hold their default."""
    return {key: value for key, value in asdict(sample).items() if value != DEFAULTS[key]}


def _read_benchmark(name: str, part: Mapping[str, Any]) -> BenchmarkResult:
    rows = part["samples"]
    return BenchmarkResult(
        name,
        tuple(rows),
        tuple(tuple(Sample(**sample) for sample in row) for row in rows.values()),
        part["left_out"],
        {key: (old, new) for key, (old, new) in part["corrected_golds"].items()},
        part["avg_with_unsolvable"],
    )


def _powers_of_two(largest: int) -> list[int]:
    return sorted({1 << i for i in range(largest.bit_length())} | {largest})


def _share(flags: Any) -> float:
    return float(np.mean(list(flags)))


def _known_share(flags: Sequence[bool | None]) -> float | None:
    known = [flag for flag in flags if flag is not None]
    return _share(known) if known else None


def _token_counts(tokens: Sequence[int | None]) -> dict[str, float] | None:
    known = [count for count in tokens if count is not None]
    if not known:
        return None
    return {"mean": float(np.mean(known)), "p95": float(np.percentile(known, 95)), "total": int(np.sum(known))}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
