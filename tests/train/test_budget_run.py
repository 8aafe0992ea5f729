"""The demo with a budget in minutes ends inside it, uses it, and finishes what it began."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from open_rs.config.load import load_recipe
from open_rs.train.run import train


def run_demo(seconds: float, out: Path, observe: Any) -> tuple[float, dict[str, Any], list[dict[str, Any]]]:
    """(wall seconds, summary, metrics) of the demo with that budget."""
    started = time.time()
    summary = train(load_recipe("demo", [f"budget.hours={seconds / 3600}"]), out, observe, started)
    took = time.time() - started
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return took, summary, rows


def half_speed_after(moment: float) -> Any:
    """An observer that, from a moment on, sleeps as long as each step took."""
    last = time.time()

    def observe(kind: str, row: Mapping[str, Any]) -> None:
        nonlocal last
        if kind != "step":
            return
        if time.time() > moment:
            time.sleep(time.time() - last)
        last = time.time()

    return observe


def silent(kind: str, row: Mapping[str, Any]) -> None:
    """Observe nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [60, 120, 240])
def test_the_demo_ends_inside_its_hours_and_uses_them(seconds: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    took, summary, rows = run_demo(seconds, out, silent)
    assert 0.9 * seconds <= took <= seconds
    optimizer = load_recipe("demo").optimizer
    assert rows[-1]["learning_rate"] == pytest.approx(optimizer.learning_rate * optimizer.min_lr_rate)
    assert (out / "model" / "config.json").is_file()
    assert summary["trained"]["num_problems"] == summary["base"]["num_problems"]
    assert json.loads((out / "ledger.json").read_text())["seconds"] <= seconds


@pytest.mark.slow
def test_a_run_slowed_to_half_speed_in_the_middle_still_ends_inside(tmp_path: Path) -> None:
    seconds = 120
    took, summary, rows = run_demo(seconds, tmp_path / "run", half_speed_after(time.time() + seconds / 2))
    assert took <= seconds
    assert "trained" in summary and len(rows) > 3
