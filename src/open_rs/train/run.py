"""A whole run: measure the base, train, measure again, save the model, write the summary; resumable at any point."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_rs.config.load import load_recipe, resolved_yaml
from open_rs.config.schema import Recipe
from open_rs.run_dir import RunDir
from open_rs.train import proof
from open_rs.train.loop import run_steps
from open_rs.train.parts import Observe, Parts
from open_rs.types import UserError

MODEL = "model"  # where the trained model lies in a run


def is_main_process() -> bool:
    """Whether this process writes for all; accelerate has not started yet, so the launcher's variable is read."""
    return os.environ.get("RANK", "0") == "0"


def silent(kind: str, row: Mapping[str, Any]) -> None:
    """Observe nothing."""


def train(recipe: Recipe, out: Path, observe: Observe = silent, started: float | None = None) -> dict[str, Any]:
    """Run a recipe into the directory `out`; returns its summary, which is also `out/summary.json`.

    `started`, as `time.time()` counts, is when the budget's clock began; now, where it is absent.
    Raises UserError for a recipe that can't run, or a directory that holds something already.
    """
    if recipe.rollout.engine == "endpoint":
        raise UserError(
            "rollout.engine: training can't update the weights behind an `endpoint`; use `local` or `vllm` (evaluation "
            "and curation take any endpoint)"
        )
    run = RunDir.create(out, resolved_yaml(recipe)) if is_main_process() else RunDir(out)
    return _run(recipe, run, observe, started or time.time())


def resume(out: Path, observe: Observe = silent, started: float | None = None) -> dict[str, Any]:
    """Go on with a run that was cut off, from its newest checkpoint, by its own recipe."""
    run = RunDir.open(out)
    return _run(load_recipe(out / "recipe.yaml"), run, observe, started or time.time())


def _run(recipe: Recipe, run: RunDir, observe: Observe, started: float) -> dict[str, Any]:
    with Parts.build(recipe, run, observe, started) as parts:
        parts.note_problems()
        step = parts.resume()
        base = _measure(parts, "base")
        if step == 0:
            parts.save(0)
        step = run_steps(parts, step)
        parts.save(step)
        parts.policy.save_pretrained(run.path / MODEL)
        trained = _measure(parts, "trained")
        summary = {"name": recipe.name, "steps": step, "seed": recipe.train.seed}
        if base is not None and trained is not None:
            summary |= proof.summarise(base, trained)
        summary |= _spent(parts)
        if parts.is_main:
            run.write_json("summary.json", summary)
        return summary


def _spent(parts: Parts) -> dict[str, Any]:
    """Seconds, in total and by phase, dollars where a price is known, and tokens by kind."""
    totals = parts.budget.totals()
    phases = {name: phase["seconds"] for name, phase in totals["phases"].items()}
    seconds = {"total": totals["seconds"], **phases, "other": totals["unexplained_seconds"]}
    return {"seconds": seconds, "usd": totals["usd"], "tokens": totals["tokens"]}


def _measure(parts: Parts, when: str) -> proof.Measured | None:
    """The proof's one side; what a cut-off run has measured already is read from its directory, not sampled again."""
    measured = None
    if parts.pool.held_out and parts.is_main:
        started = time.perf_counter()
        measured = proof.measure(parts, when)
        parts.budget.charge({"evaluate": time.perf_counter() - started}, {"evaluated": measured.num_tokens})
    parts.policy.accelerator.wait_for_everyone()
    return measured
