"""The row of a results table: one model, one cell a benchmark; measured here, published, or read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from open_rs import stats
from open_rs.evaluate.result import Evaluation


@dataclass(frozen=True, slots=True)
class Cell:
    """An accuracy in [0, 1]. `ci95` is absent where too little was published; `spread` is a stated deviation."""

    value: float
    ci95: stats.Interval | None = None
    spread: float | None = None
    problems: int | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One model. `avg` is absent where a benchmark of the table is."""

    label: str
    cells: Mapping[str, Cell]
    avg: Cell | None = None
    note: str = ""


def single_sample_cell(value: float, problems: int) -> Cell:
    """A published accuracy of one sample a problem, with the Wilson interval that was not published."""
    return Cell(value, stats.wilson(round(value * problems), problems), None, problems, 1)


def average_cell(cells: Mapping[str, Cell], value: float | None = None) -> Cell | None:
    """Unweighted mean over the cells, with an interval where all of them have one (MOVER, as `Evaluation.ci95`)."""
    if not cells:
        return None
    mean = float(np.mean([cell.value for cell in cells.values()])) if value is None else value
    intervals = [(cell.value, cell.ci95) for cell in cells.values() if cell.ci95 is not None]
    if len(intervals) < len(cells):
        return Cell(mean)
    below = float(np.sqrt(sum((v - i.low) ** 2 for v, i in intervals))) / len(cells)
    above = float(np.sqrt(sum((i.high - v) ** 2 for v, i in intervals))) / len(cells)
    return Cell(mean, stats.Interval(mean - below, mean + above))


def row_of(evaluation: Evaluation, label: str | None = None) -> Row:
    """An evaluation as a row."""
    cells = {
        name: Cell(result.avg, result.ci95, None, len(result.problem_ids), result.k)
        for name, result in evaluation.benchmarks.items()
    }
    return Row(label or evaluation.model, cells, Cell(evaluation.avg, evaluation.ci95))
