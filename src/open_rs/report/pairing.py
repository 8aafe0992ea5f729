"""What asking both sides the same problems buys: pairs of evaluations in a run, paired and as if unpaired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from open_rs.evaluate.compare import Comparison, compare
from open_rs.evaluate.result import RESULTS, Evaluation
from open_rs.report import charts
from open_rs.report.card import SETS
from open_rs.run_dir import RunDir
from open_rs.stats import Interval
from open_rs.types import UserError

SWEEP = "results/checkpoints/validation"  # where `open-rs evaluate RUN --checkpoints all` leaves its results
CURVE = "results/curve"  # where a run keeps the points of its validation curve
NEIGHBOURS = 5  # pairs of neighbouring points that are shown, the latest ones
MATTERS = 1.3  # an interval so many times narrower is worth 1.7 times as many problems


@dataclass(frozen=True)
class Sides:
    """Two result directories of a run that answer the same problems, the earlier one first, and what to call them."""

    label: str
    baseline: Path
    candidate: Path


@dataclass(frozen=True)
class Pair:
    """One set of problems on both sides."""

    label: str
    result: Comparison

    @property
    def matters(self) -> bool:
        """Whether pairing changed what is known."""
        return self.result.gain_from_pairing >= MATTERS

    @property
    def problems_unpaired(self) -> float:
        """Problems that an unpaired comparison would need for an interval as narrow: widths fall with their root."""
        return self.result.gain_from_pairing**2 * self.result.difference.num_problems


def describe_pairing(run: RunDir) -> dict[str, Any] | None:
    """The section's table, drawings and sentence; None where the run holds no two evaluations.

    Pairs that can't be compared (other settings, another version's files) are named under `refused`, with the reason.
    """
    by_sides: list[list[Pair]] = []
    refused: list[str] = []
    for sides in _sides(run.path):
        try:
            by_sides.append(_compare(sides))
        except UserError as error:
            refused.append(f"{sides.label}: {error}")
    if not by_sides and not refused:
        return None
    pairs = [pair for compared in by_sides for pair in compared]
    return {
        "rows": [_row(pair) for pair in pairs],
        "drawings": [_drawing(pair) for pair in _drawn(by_sides)],
        "sentence": _sentence(pairs),
        "refused": refused,
        "has_sweep": bool(_steps(run.path / SWEEP)),
    }


def _sides(run: Path) -> Iterator[Sides]:
    """Neighbouring points of a sweep or else of the validation curve, the latest first, then the whole training."""
    steps = (_steps(run / SWEEP) or _steps(run / CURVE))[-NEIGHBOURS - 1 :]
    for earlier, later in reversed(list(pairwise(steps))):
        yield Sides(f"step {_step(earlier)} → step {_step(later)}", earlier, later)
    base, trained = run / "results" / "base", run / "results" / "trained"
    if all((side / RESULTS).is_file() for side in (base, trained)):
        yield Sides("before → after training", base, trained)


def _steps(place: Path) -> list[Path]:
    return sorted(path.parent for path in place.glob(f"step-??????/{RESULTS}"))


def _compare(sides: Sides) -> list[Pair]:
    found = compare(Evaluation.load(sides.candidate), Evaluation.load(sides.baseline))
    return [Pair(sides.label, row) for row in found.benchmarks.values()]


def _drawn(by_sides: Sequence[Sequence[Pair]]) -> list[Pair]:
    """The latest two checkpoints and the training as a whole, whichever there are, on their first set."""
    return [compared[0] for compared in dict.fromkeys([*map(tuple, by_sides[:1]), *map(tuple, by_sides[-1:])])]


def _row(pair: Pair) -> Mapping[str, str]:
    row = pair.result
    return {
        "label": f"{pair.label}, {_set(row.name)}",
        "difference": f"{100 * row.difference.value:+.2f}",
        "unpaired": _signed(row.unpaired),
        "paired": _signed(row.difference.ci95),
        "narrower": f"{row.gain_from_pairing:.1f} x",
        "problems": f"{pair.problems_unpaired:,.0f} for {row.difference.num_problems:,}",
    }


def _drawing(pair: Pair) -> Mapping[str, Any]:
    row = pair.result
    bars = [
        charts.Difference("unpaired", row.unpaired.low, row.unpaired.high, charts.BEFORE),
        charts.Difference("paired", row.difference.ci95.low, row.difference.ci95.high, charts.AFTER),
    ]
    title = f"{pair.label}: {100 * row.difference.value:+.2f} points"
    return {
        "chart": Markup(charts.differences(title, row.difference.value, bars)),
        "caption": f"{row.gain_from_pairing:.1f} times narrower",
        "matters": pair.matters,
    }


def _sentence(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    shared = (
        "Both sides answer the same problems with the same seeds. What they share, the difficulty of a problem and the "
        "luck of a draw, cancels in the difference."
    )
    best = max(pairs, key=lambda pair: pair.result.gain_from_pairing)
    if not best.matters:
        return (
            f"{shared} Here little is shared, since two sides this far apart disagree on most problems; between close "
            "checkpoints, pairing decides."
        )
    row, start = best.result, best.label[0].upper() + best.label[1:]
    return (
        f"{shared} {start}: with problems and luck of its own on each side, the difference would be known to "
        f"{_width(row.unpaired)} points; paired it is known to {_width(row.difference.ci95)}. Without pairing that "
        f"would take {best.problems_unpaired:,.0f} problems instead of {row.difference.num_problems:,}. Two sides that "
        "are far apart disagree on most problems, and pairing changes little there."
    )


def _width(interval: Interval) -> str:
    return f"± {50 * interval.width:.1f}"


def _signed(interval: Interval) -> str:
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def _set(name: str) -> str:
    return str(SETS.get(name, name.replace("_", " "))).split(" than")[0]


def _step(directory: Path) -> int:
    return int(directory.name.removeprefix("step-"))
