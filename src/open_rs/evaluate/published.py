"""The paper's tables, the release's 21 checkpoints and what others measured since, as data."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from open_rs import stats
from open_rs.evaluate.fingerprint import differences, settings_of
from open_rs.evaluate.protocols import PROTOCOLS
from open_rs.evaluate.result import BenchmarkResult, Evaluation
from open_rs.evaluate.rows import Cell, Row, average_cell, single_sample_cell
from open_rs.evaluate.tables import counted
from open_rs.types import UserError

PAPER_COLUMNS = ("aime24", "math_500", "amc23", "minerva", "olympiadbench")


@dataclass(frozen=True, slots=True)
class Claim:
    """A published score beside our measurement of the same model; `departures` say how ours was made otherwise."""

    benchmark: str
    claimed: float
    measured: float
    ci95: stats.Interval
    departures: tuple[str, ...] = ()

    @property
    def inside(self) -> bool:
        return self.claimed in self.ci95

    def __str__(self) -> str:
        low, high = 100 * self.ci95.low, 100 * self.ci95.high
        where = "inside" if self.inside else "outside"
        otherwise = f"; otherwise than there: {', '.join(self.departures)}" if self.departures else ""
        return (
            f"{self.benchmark}: published {100 * self.claimed:.1f}, measured {100 * self.measured:.1f} "
            f"({low:.1f} to {high:.1f}): the claim lies {where} the interval{otherwise}"
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the best of several checkpoints is worth, when each was tried on one benchmark, one sample a problem."""

    benchmark: str
    num_problems: int
    num_checkpoints: int
    mean: float
    spread: float  # standard deviation over checkpoints
    binomial_spread: float  # what one sample of so many problems varies by on its own
    best: float
    best_label: str
    expected_best: float
    chance: float

    def __str__(self) -> str:
        luck = "is what" if self.chance >= 0.05 else "is more than what"
        return (
            f"{self.benchmark}: {self.num_checkpoints} checkpoints average {100 * self.mean:.1f} % with a standard "
            f"deviation of {100 * self.spread:.1f} points; chance alone gives {100 * self.binomial_spread:.1f} with "
            f"{self.num_problems} problems. The best, {100 * self.best:.1f} % ({self.best_label}), {luck} a "
            f"constant {100 * self.mean:.0f} % would give: its expected best of {self.num_checkpoints} is "
            f"{100 * self.expected_best:.1f} %, and {100 * self.chance:.0f} % of such sweeps reach "
            f"{100 * self.best:.1f} %."
        )


@cache
def data() -> Mapping[str, Any]:
    """`published.json`, read once."""
    return json.loads((files("open_rs.evaluate") / "published.json").read_text(encoding="utf-8"))


def table1() -> list[Row]:
    """Table 1. Rows of one sample a problem get the Wilson interval that the paper does not give."""
    return [_row(entry) for entry in data()["table1"]]


def reevaluations() -> dict[str, list[Row]]:
    """Independent measurements, by source."""
    return {part["source"]: [_reevaluated(entry) for entry in part["rows"]] for part in data()["reevaluations"]}


def checkpoints() -> list[Row]:
    """The 21 published checkpoints of the three experiments."""
    rows: dict[str, dict[str, Cell]] = {}
    for entry in data()["checkpoints"]:
        label = f"experiment {entry['experiment']}, step {entry['step']}"
        cell = single_sample_cell(entry["correct"] / entry["problems"], entry["problems"])
        rows.setdefault(label, {})[entry["benchmark"]] = cell
    return [Row(label, cells) for label, cells in rows.items()]


def sweep(rows: list[Row], benchmark: str) -> Sweep:
    """How much of the best of these single-sample rows is luck."""
    scored = [(row.cells[benchmark], row.label) for row in rows if benchmark in row.cells]
    if len(scored) < 2:
        raise UserError(f"{benchmark}: fewer than two rows have it; a sweep needs at least two checkpoints")
    values = [cell.value for cell, _ in scored]
    best, label = max(scored, key=lambda pair: pair[0].value)
    n = best.problems
    assert n is not None, "single-sample rows know their number of problems"
    mean = statistics.fmean(values)
    return Sweep(
        benchmark=benchmark,
        num_problems=n,
        num_checkpoints=len(values),
        mean=mean,
        spread=statistics.stdev(values),
        binomial_spread=(mean * (1 - mean) / n) ** 0.5,
        best=best.value,
        best_label=label,
        expected_best=stats.expected_best(mean, n, len(values)),
        chance=stats.chance_of_best(round(best.value * n), mean, n, len(values)),
    )


def find(name: str) -> Row | None:
    """The row of Table 1 with that name or Hub id, or None."""
    wanted = _plain(name)
    for entry in data()["table1"]:
        if wanted in {_plain(known) for known in (entry["model"], *entry["aliases"])}:
            return _row(entry)
    return None


def require(name: str) -> Row:
    """As `find`; an unknown name is a UserError that shows the nearest."""
    row = find(name)
    if row is not None:
        return row
    names = [known for entry in data()["table1"] for known in (*entry["aliases"], entry["model"])]
    near = get_close_matches(name, names, n=1, cutoff=0.3)
    hint = f"; did you mean `{near[0]}`" if near else ""
    raise UserError(f"{name}: neither a result directory nor a published model{hint}? See `open-rs published 1`")


def claims(evaluation: Evaluation) -> list[Claim]:
    """Each published score of this model beside our interval; none for a model that was not published."""
    row = find(evaluation.model)
    if row is None:
        return []
    asked = _asked_otherwise(evaluation)
    return [
        Claim(name, row.cells[name].value, result.avg, result.ci95, (*asked, *_counted_otherwise(result)))
        for name, result in evaluation.benchmarks.items()
        if name in row.cells
    ]


def _asked_otherwise(evaluation: Evaluation) -> tuple[str, ...]:
    """What was asked otherwise than the paper asked; nothing where that is not known, as of completions made elsewhere.

    Rows that the paper copied were asked in yet other ways, which it does not state.
    """
    asked = evaluation.fingerprint.get("protocol")
    if asked is None:
        return ()
    differing = differences(settings_of(PROTOCOLS["open-rs"]), asked)
    names = [name.replace("_", " ") for name, *_ in differing if name not in ("name", "seed")]
    return (f"asked with another {', '.join(names)}",) if names else ()


def _counted_otherwise(result: BenchmarkResult) -> tuple[str, ...]:
    """How this score was counted and the published one was not, which kept golds and problems as they stand."""
    found = []
    asked, size = len(result.problem_ids) + len(result.left_out), data()["sizes"].get(result.name)
    if size is not None and asked < size:
        found.append(f"{asked} of {size} problems asked")
    if result.corrected_golds:
        found.append(f"{counted(len(result.corrected_golds), 'gold')} corrected")
    if result.left_out:
        found.append(f"{counted(len(result.left_out), 'problem')} left out")
    outside = result.diagnostics["outside_box"]
    if outside:
        found.append(f"{100 * outside:.1f} % of answers read outside a box, by rules of our own")
    return tuple(found)


def _row(entry: Mapping[str, Any]) -> Row:
    sizes = data()["sizes"]
    if entry["samples"] == 1:
        cells = {name: single_sample_cell(value / 100, sizes[name]) for name, value in entry["values"].items()}
    else:
        cells = {name: Cell(value / 100) for name, value in entry["values"].items()}
    avg = None if entry["avg"] is None else average_cell(cells, entry["avg"] / 100)
    return Row(entry["model"], cells, avg)


def _reevaluated(entry: Mapping[str, Any]) -> Row:
    cells = {
        name: Cell(value[0] / 100, spread=value[1] / 100) if isinstance(value, list) else Cell(value / 100)
        for name, value in entry["values"].items()
    }
    return Row(entry["model"], cells, Cell(entry["avg"] / 100) if "avg" in entry else None)


def _plain(name: str) -> str:
    """A model name without owner, case and punctuation: `Open-RS3`, `open_rs3`, `knoveleng/Open-RS3` are one."""
    return "".join(letter for letter in name.rpartition("/")[2].lower() if letter.isalnum())
