"""Figures of evaluations as SVG: accuracy with intervals, pass@k, length right against wrong, checkpoints."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.rows import Row
from open_rs.evaluate.tables import heading
from open_rs.run_dir import replace_file

COLOURS = ("#3b5b92", "#c0692f", "#4f8a5b", "#8a4f7d", "#6b6b6b", "#a38a2c")


def draw(evaluations: Sequence[Evaluation], directory: Path) -> list[Path]:
    """Write `accuracy.svg`, `pass_at_k.svg` and `lengths.svg` (where tokens are known) and return their paths."""
    drawn = [_accuracy(evaluations, directory / "accuracy.svg"), _pass_at_k(evaluations, directory / "pass_at_k.svg")]
    lengths = _lengths(evaluations[0], directory / "lengths.svg")
    return [*drawn, *([lengths] if lengths is not None else [])]


def draw_checkpoints(rows: Sequence[Row], benchmark: str, target: Path) -> Path:
    """Accuracy with intervals over checkpoints, and the band that sampling alone would fill."""
    figure, axes = _canvas(f"{heading(benchmark)} over checkpoints", width=8.0)
    cells = [(row.label, row.cells[benchmark]) for row in rows if benchmark in row.cells]
    values = np.array([cell.value for _, cell in cells])
    mean = float(values.mean())
    if all(cell.problems and cell.samples == 1 for _, cell in cells):
        sizes = np.array([cell.problems or 1 for _, cell in cells])
        band = 100 * 1.96 * np.sqrt(mean * (1 - mean) / sizes.mean())
        axes.axhspan(100 * mean - band, 100 * mean + band, color="#dddddd", label="95 % of luck around one accuracy")
    for place, (_, cell) in enumerate(cells):
        _error_bar(axes, place, cell.value, cell.ci95, COLOURS[0])
    axes.axhline(100 * mean, color="#6b6b6b", linewidth=1, label="mean")
    axes.set_xticks(range(len(cells)), [label for label, _ in cells], rotation=60, ha="right", fontsize=7)
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, target)


def _accuracy(evaluations: Sequence[Evaluation], target: Path) -> Path:
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.benchmarks))
    figure, axes = _canvas("accuracy, 95 % intervals", width=1.6 + 1.1 * len(names))
    for order, evaluation in enumerate(evaluations):
        colour = COLOURS[order % len(COLOURS)]
        offset = (order - (len(evaluations) - 1) / 2) * 0.18
        for place, name in enumerate(names):
            if name in evaluation.benchmarks:
                result = evaluation.benchmarks[name]
                _error_bar(axes, place + offset, result.avg, result.ci95, colour)
        axes.plot([], [], "o", color=colour, label=evaluation.model)
    axes.set_xticks(range(len(names)), [heading(name) for name in names])
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, target)


def _pass_at_k(evaluations: Sequence[Evaluation], target: Path) -> Path:
    figure, axes = _canvas("pass@k (solid), maj@k (dashed)")
    for order, evaluation in enumerate(evaluations):
        for number, (name, result) in enumerate(evaluation.benchmarks.items()):
            colour = COLOURS[(order * len(evaluation.benchmarks) + number) % len(COLOURS)]
            label = heading(name) if len(evaluations) == 1 else f"{evaluation.model}, {heading(name)}"
            axes.plot(list(result.pass_at), [100 * v for v in result.pass_at.values()], "o-", color=colour, label=label)
            axes.plot(list(result.majority_at), [100 * v for v in result.majority_at.values()], "--", color=colour)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("samples k")
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, target)


def _lengths(evaluation: Evaluation, target: Path) -> Path | None:
    samples = [s for result in evaluation.benchmarks.values() for row in result.samples for s in row]
    right = [s.tokens for s in samples if s.correct and s.tokens is not None]
    wrong = [s.tokens for s in samples if not s.correct and s.tokens is not None]
    if not right and not wrong:
        return None
    figure, axes = _canvas("completion length", unit="completions")
    edges = np.linspace(0, max([1, *right, *wrong]), 31)
    axes.hist([right, wrong], bins=list(edges), color=[COLOURS[2], COLOURS[1]], label=["right", "wrong"], stacked=True)
    axes.set_xlabel("tokens")
    axes.legend(frameon=False, fontsize=8)
    return _save(figure, target)


def _canvas(title: str, width: float = 6.0, unit: str = "%") -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4.0, width), 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _error_bar(axes: Any, place: float, value: float, interval: Any, colour: str) -> None:
    below, above = (0.0, 0.0) if interval is None else (value - interval.low, interval.high - value)
    error = [[100 * below], [100 * above]]
    axes.errorbar([place], [100 * value], yerr=error, fmt="o", color=colour, capsize=3, markersize=4)


def _save(figure: Any, target: Path) -> Path:
    """Equal figures are equal files: no date, and ids that follow from the content."""
    from matplotlib import rc_context

    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "open-rs"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    replace_file(target, drawn.getvalue())
    return target
