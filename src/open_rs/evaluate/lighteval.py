"""Reading lighteval's result files, and giving them the intervals that they lack.

Layout: `<any folders>/results/<organisation>/<model>/results_<time>.json`, one or more tasks a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from open_rs.data.sources import SOURCES
from open_rs.evaluate.rows import Cell, Row, average_cell, single_sample_cell
from open_rs.types import UserError

METRICS = ("extractive_match", "math_pass@1:1_samples", "pass@k:k=1", "pass@1", "exact_match", "acc")
TASK_NAMES = {"math500": "math_500", "olympiad_bench": "olympiadbench", "minerva_math": "minerva", "aime2024": "aime24"}


@dataclass(frozen=True, slots=True)
class Score:
    """One task's score in one file."""

    model: str
    folder: str  # what lies above `results/`, or the file's folder
    benchmark: str
    cell: Cell
    written: str  # the time in the file's name; the newest of a task counts


def read_lighteval(directory: Path) -> list[Row]:
    """One row a model (and folder, where a model has several), with Wilson intervals and the average over benchmarks.

    The average is taken over scores rounded to a tenth of a point, as the paper's Table 1 does.
    Raises UserError where no result file lies below `directory` or none holds a known metric.
    """
    if not directory.exists():
        raise UserError(f"{directory}: no such directory; give the folder that lighteval wrote its results to")
    places = [directory] if directory.is_file() else sorted(directory.rglob("results_*.json"))
    scores = [score for path in places for score in _read_file(path, directory)]
    if not scores:
        raise UserError(f"{directory}: no results_*.json of lighteval with a known metric in it ({', '.join(METRICS)})")
    return _rows(scores)


def _rows(scores: list[Score]) -> list[Row]:
    folders: dict[str, set[str]] = {}
    for score in scores:
        folders.setdefault(score.model, set()).add(score.folder)
    table: dict[str, dict[str, Cell]] = {}
    for score in sorted(scores, key=lambda s: (s.model, s.folder, s.written)):
        several = len(folders[score.model]) > 1
        label = f"{score.model} ({score.folder})" if several else score.model
        table.setdefault(label, {})[score.benchmark] = score.cell  # the newest replaces what came before
    return [Row(label, cells, average_cell(cells, _average_as_printed(cells))) for label, cells in table.items()]


def _average_as_printed(cells: Mapping[str, Cell]) -> float:
    return fmean(round(cell.value, 3) for cell in cells.values())


def _read_file(path: Path, root: Path) -> Iterator[Score]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        results, general = value["results"], value["config_general"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result file of lighteval ({error!r}); remove it from the folder") from error
    model = general.get("model_name") or general.get("model_config", {}).get("model_name") or path.parent.name
    for task, metrics in results.items():
        name = _benchmark_of(task)
        if name == "all" or name.startswith("_"):
            continue
        found = _metric(metrics)
        if found is not None:
            n = _num_problems(task, name, value.get("config_tasks", {}), *found)
            cell = Cell(found[0]) if n is None else single_sample_cell(found[0], n)
            yield Score(model, _folder(path, root), name, cell, path.stem)


def _benchmark_of(task: str) -> str:
    """`custom|aime24|0`, `lighteval|aime24|0|0` and `aime24|0` are all aime24."""
    parts = [part for part in task.split("|") if not part.isdigit()]
    name = parts[-1].split(":")[0].lower().replace("-", "_")
    return TASK_NAMES.get(name, name)


def _metric(metrics: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """(value, standard error) of the first known metric."""
    for known in METRICS:
        for name, value in metrics.items():
            if name == known or name.startswith(f"{known}:"):
                return float(value), metrics.get(f"{name}_stderr")
    return None


def _num_problems(task: str, name: str, tasks: Mapping[str, Any], value: float, stderr: float | None) -> int | None:
    """Problems behind a score: as stated, or solved from lighteval's stderr = sqrt(p (1 - p) / (n - 1))."""
    keys = [key for key in (task, task.rpartition("|")[0]) if key in tasks]
    stated = tasks[keys[0]].get("effective_num_docs") or tasks[keys[0]].get("original_num_docs") if keys else None
    if isinstance(stated, int) and stated > 0:
        return stated
    if stderr and math.isfinite(stderr):
        return round(value * (1 - value) / stderr**2) + 1
    return SOURCES[name].num_rows if name in SOURCES else None


def _folder(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts[:-1] if path != root else ()
    above = parts[: parts.index("results")] if "results" in parts else parts
    return "/".join(above) or "."
