"""Comparing evaluations on the same problems: paired intervals, sign-flip p values, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from open_rs import stats
from open_rs.evaluate.fingerprint import differences, settings_of
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.result import BenchmarkResult, Evaluation
from open_rs.evaluate.rows import Row
from open_rs.types import UserError

MAY_DIFFER = ("name", "seed", "max_tokens")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One benchmark in two evaluations: candidate minus baseline on the `num_problems` that both have."""

    name: str
    candidate: float
    baseline: float
    difference: stats.PairedDifference
    adjusted_p: float
    unpaired: stats.Interval
    detectable: float
    num_dropped: int  # problems that only one side has

    @property
    def gain_from_pairing(self) -> float:
        """How many times narrower the paired interval is than the unpaired one."""
        return self.unpaired.width / self.difference.ci95.width


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All shared benchmarks, and their average where there are several."""

    candidate: str
    baseline: str
    benchmarks: Mapping[str, Comparison]
    pooled: stats.PairedDifference
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; differences in shares, not points."""
        return {
            "candidate": self.candidate,
            "baseline": self.baseline,
            "benchmarks": {name: _as_json(row) for name, row in self.benchmarks.items()},
            "pooled": _difference_as_json(self.pooled),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One benchmark of two rows whose problems aren't known one by one; `ci95` is None where a side has no interval."""

    name: str
    candidate: float
    baseline: float
    ci95: stats.Interval | None


@dataclass(frozen=True, slots=True)
class RowComparison:
    """An evaluation beside a published row, or two published rows: nothing can be paired."""

    candidate: str
    baseline: str
    benchmarks: Mapping[str, RowDifference]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; differences in shares, not points."""
        rows = {
            row.name: {
                "candidate": row.candidate,
                "baseline": row.baseline,
                "difference": row.candidate - row.baseline,
                "unpaired_ci95": None if row.ci95 is None else [row.ci95.low, row.ci95.high],
            }
            for row in self.benchmarks.values()
        }
        return {
            "candidate": self.candidate,
            "baseline": self.baseline,
            "benchmarks": rows,
            "notes": list(self.notes),
        }


def paired(candidate: BenchmarkResult, baseline: BenchmarkResult) -> stats.PairedDifference:
    """Candidate minus baseline over the problems that both have, every problem counted once."""
    return stats.paired_difference(*_columns(candidate, baseline))


def compare(candidate: Evaluation, baseline: Evaluation) -> Comparisons:
    """Compare all benchmarks that both evaluations have.

    Raises UserError when they were asked under different protocols, or share no benchmark or no problem.
    """
    _check_same_protocol(candidate, baseline)
    names = [name for name in candidate.benchmarks if name in baseline.benchmarks]
    if not names:
        raise UserError(
            f"{candidate.model} has {', '.join(candidate.benchmarks)}; {baseline.model} has "
            f"{', '.join(baseline.benchmarks)}: nothing in common; evaluate both on the same benchmarks"
        )
    pairs = {name: (candidate.benchmarks[name], baseline.benchmarks[name]) for name in names}
    columns = {name: _columns(*pair) for name, pair in pairs.items()}
    found = {name: stats.paired_difference(*column) for name, column in columns.items()}
    adjusted = stats.holm([difference.p_value for difference in found.values()])
    rows = {
        name: _comparison(name, columns[name], found[name], p, _num_dropped(*pairs[name]))
        for (name, p) in zip(names, adjusted, strict=True)
    }
    pooled = found[names[0]] if len(names) == 1 else stats.macro_difference(list(columns.values()))
    return Comparisons(candidate.model, baseline.model, rows, pooled, tuple(_notes(candidate, baseline, rows)))


def check_protocol(candidate: str, protocol: Protocol, baseline: Evaluation) -> None:
    """Raise UserError, before anything is sampled, where `compare` would refuse what the protocol will give.

    The limit may still be lowered to the candidate's context, and the samples may differ.
    """
    theirs = baseline.fingerprint.get("protocol")
    if theirs is not None:
        _refuse(candidate, settings_of(protocol), baseline.model, theirs, MAY_DIFFER)


def compare_rows(candidate: Row, baseline: Row) -> RowComparison:
    """Compare two rows score by score, unpaired. Raises UserError when they share no benchmark."""
    names = [name for name in candidate.cells if name in baseline.cells]
    if not names:
        raise UserError(
            f"{candidate.label} and {baseline.label} share no benchmark ({', '.join(candidate.cells)}; "
            f"{', '.join(baseline.cells)}); evaluate on one that both have"
        )
    rows = {}
    for name in names:
        new, old = candidate.cells[name], baseline.cells[name]
        interval = None
        if new.ci95 is not None and old.ci95 is not None:
            interval = stats.difference_of(new.value, new.ci95, old.value, old.ci95)
        rows[name] = RowDifference(name, new.value, old.value, interval)
    note = "a published row gives no verdicts by problem, so nothing is paired, and its protocol may differ"
    return RowComparison(candidate.label, baseline.label, rows, (note,))


def _columns(candidate: BenchmarkResult, baseline: BenchmarkResult) -> tuple[Any, Any, Any, Any]:
    there = {problem: index for index, problem in enumerate(baseline.problem_ids)}
    shared = [(index, there[p]) for index, p in enumerate(candidate.problem_ids) if p in there]
    if not shared:
        raise UserError(f"{candidate.name}: the two evaluations share no problem; evaluate both on the same data")
    mine, theirs = np.array(shared).T
    return candidate.scores[mine], baseline.scores[theirs], candidate.num_samples[mine], baseline.num_samples[theirs]


def _comparison(
    name: str, column: tuple[Any, Any, Any, Any], difference: stats.PairedDifference, adjusted_p: float, dropped: int
) -> Comparison:
    return Comparison(
        name=name,
        candidate=float(column[0].mean()),
        baseline=float(column[1].mean()),
        difference=difference,
        adjusted_p=adjusted_p,
        unpaired=stats.unpaired_interval(*column),
        detectable=stats.detectable_difference(difference.standard_error),
        num_dropped=dropped,
    )


def _num_dropped(candidate: BenchmarkResult, baseline: BenchmarkResult) -> int:
    return len(set(candidate.problem_ids) ^ set(baseline.problem_ids))


def _check_same_protocol(candidate: Evaluation, baseline: Evaluation) -> None:
    mine, theirs = (e.fingerprint.get("protocol") for e in (candidate, baseline))
    if mine is not None and theirs is not None:
        _refuse(candidate.model, mine, baseline.model, theirs, ("name", "seed"))


def _refuse(
    candidate: str, mine: Mapping[str, Any], baseline: str, theirs: Mapping[str, Any], free: tuple[str, ...]
) -> None:
    """Raise UserError where the protocols differ in anything but what is `free` to."""
    differing = [f"{name} {old!r} and {new!r}" for name, old, new in differences(theirs, mine) if name not in free]
    if differing:
        raise UserError(
            f"{candidate} and {baseline} are asked differently ({'; '.join(differing[:3])}); a difference would mix "
            "protocol and model: evaluate both under one protocol"
        )


def _notes(candidate: Evaluation, baseline: Evaluation, rows: Mapping[str, Comparison]) -> list[str]:
    notes = [
        f"{row.name}: {row.num_dropped} problems on one side only; compared on the {row.difference.num_problems} shared"
        for row in rows.values()
        if row.num_dropped
    ]
    alone = [name for name in {**candidate.benchmarks, **baseline.benchmarks} if name not in rows]
    if alone:
        notes.append(f"on one side only, not compared: {', '.join(alone)}")
    return notes


def _as_json(row: Comparison) -> dict[str, Any]:
    return {
        "candidate": row.candidate,
        "baseline": row.baseline,
        **_difference_as_json(row.difference),
        "adjusted_p": row.adjusted_p,
        "unpaired_ci95": [row.unpaired.low, row.unpaired.high],
        "gain_from_pairing": row.gain_from_pairing,
        "detectable_difference": row.detectable,
        "dropped": row.num_dropped,
    }


def _difference_as_json(difference: stats.PairedDifference) -> dict[str, Any]:
    return {
        "difference": difference.value,
        "ci95": [difference.ci95.low, difference.ci95.high],
        "p_value": difference.p_value,
        "n": difference.num_problems,
    }
