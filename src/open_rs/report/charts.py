"""Charts as inline SVG: numbers in, markup out. The page's ink and its dark mode reach them through `currentColor`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib.figure import Figure

INK = "#123456"  # never seen: replaced by `currentColor`
BEFORE, AFTER, THIRD, FOURTH = "#8a8f98", "#0b7a75", "#c2571a", "#6a4fb6"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "open-rs",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Series:
    """One line of a chart; `low` and `high` draw a band around it. What was set and not measured is not `noisy`."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = AFTER
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    points: bool = False
    noisy: bool = True


@dataclass(frozen=True)
class Bar:
    """A value in [0, 1] with its interval, for `intervals`."""

    label: str
    value: float
    low: float
    high: float
    colour: str = AFTER


@dataclass(frozen=True)
class Difference:
    """An interval of a difference, as a share, for `differences`."""

    label: str
    low: float
    high: float
    colour: str = AFTER


def lines(title: str, series: Sequence[Series], percent: bool = False, x_label: str = "step") -> str:
    """A line chart, 4.6 by 2.7 inches. Noisy series of more than 20 points also get a smooth line over a faint one."""

    def draw(axes: Any) -> None:
        for one in series:
            _draw_series(axes, one)
        axes.set_xlabel(x_label)
        if percent:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if len(series) > 1:
            axes.legend(loc="best", fontsize=9)

    return _svg(title, draw, (4.6, 2.7))


def intervals(title: str, bars: Sequence[Bar]) -> str:
    """Values with their intervals, one row each, the first on top."""

    def draw(axes: Any) -> None:
        for row, bar in enumerate(reversed(bars)):
            axes.plot(
                [bar.low, bar.high], [row, row], color=bar.colour, linewidth=6, alpha=0.35, solid_capstyle="round"
            )
            axes.plot([bar.value], [row], marker="o", color=bar.colour, markersize=8)
            label = f"{100 * bar.value:.1f} %"
            axes.annotate(label, (bar.value, row), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9)
        axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)])
        axes.set_ylim(-0.6, len(bars) - 0.2)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(axis="y", visible=False)

    return _svg(title, draw, (9.4, 0.7 + 0.55 * len(bars)))


def differences(title: str, value: float, bars: Sequence[Difference]) -> str:
    """One difference with its interval computed in several ways, the first on top, widths written beside them."""

    def draw(axes: Any) -> None:
        for row, bar in enumerate(reversed(bars)):
            low, high = 100 * bar.low, 100 * bar.high
            axes.plot([low, high], [row, row], color=bar.colour, linewidth=9, alpha=0.45, solid_capstyle="butt")
            axes.plot([100 * value], [row], marker="o", color=bar.colour, markersize=8)
            label = f"{bar.label}: {high - low:.2f} points wide"
            axes.annotate(label, (low, row), xytext=(0, 9), textcoords="offset points", fontsize=9)
        if min(bar.low for bar in bars) < 0 < max(bar.high for bar in bars):
            axes.axvline(0, color=INK, linewidth=1, alpha=0.5, zorder=0)
        axes.set_yticks([])
        axes.set_ylim(-0.5, len(bars) - 0.2)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.xaxis.set_major_formatter(lambda points, _: f"{points:+.4g}" if points else "0")
        axes.set_xlabel("difference, points, with its 95 % interval")

    return _svg(title, draw, (4.6, 1.1 + 0.6 * len(bars)))


def shares(title: str, parts: Sequence[tuple[str, float]], unit: str) -> str:
    """Where a total went: horizontal bars, longest first."""
    ordered = sorted((part for part in parts if part[1] > 0), key=lambda part: part[1])

    def draw(axes: Any) -> None:
        axes.barh([name for name, _ in ordered], [value for _, value in ordered], color=AFTER, alpha=0.8, height=0.6)
        for row, (_, value) in enumerate(ordered):
            axes.annotate(f" {value:,.0f} {unit}", (value, row), va="center", fontsize=9)
        axes.margins(x=0.18)
        axes.grid(axis="y", visible=False)

    return _svg(title, draw, (4.6, 0.8 + 0.3 * max(len(ordered), 1)))


def _draw_series(axes: Any, one: Series) -> None:
    if one.low is not None and one.high is not None:
        axes.fill_between(one.x, one.low, one.high, color=one.colour, alpha=0.18, linewidth=0)
    marker: dict[str, Any] = {"marker": "o", "markersize": 5} if one.points else {}
    if len(one.y) <= 20 or one.points or not one.noisy:
        axes.plot(one.x, one.y, color=one.colour, label=one.label, linewidth=1.6, **marker)
        return
    axes.plot(one.x, one.y, color=one.colour, linewidth=0.8, alpha=0.3)
    axes.plot(one.x, smooth(one.y), color=one.colour, label=one.label, linewidth=1.8)


def smooth(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average, corrected for its start, so that the first value is itself."""
    smoothed, total, mass = [], 0.0, 0.0
    for value in values:
        total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        smoothed.append(total / mass)
    return smoothed


def _svg(title: str, draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
        draw(axes)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    markup = target.getvalue()
    markup = markup[markup.index("<svg") :].replace(INK, "currentColor")
    salt = re.sub(r"\W+", "-", title.lower())  # ids of several charts on one page must differ
    markup = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}-", markup)
    return markup.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
