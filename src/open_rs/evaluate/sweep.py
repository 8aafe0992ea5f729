"""Choosing among a run's checkpoints on its own held-out problems, and saying what the choice is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from open_rs import stats
from open_rs.evaluate.records import COMPLETIONS
from open_rs.evaluate.result import Evaluation
from open_rs.models import CausalLM
from open_rs.run_dir import read_whole_lines
from open_rs.types import Problem, UserError

STATE_FILE = "policy.safetensors"  # as `train.policy` writes it: tensors named `weight/<parameter>`
HELD_OUT = "held_out"


@dataclass(frozen=True)
class Selection:
    """Validation results by checkpoint, oldest first, and what the best of them is worth."""

    evaluations: Mapping[str, Evaluation]
    best: str
    honest_best: float | None  # the winner's score on samples that did not choose it; None with one sample a problem

    def __str__(self) -> str:
        scores = {name: evaluation.benchmarks[HELD_OUT].avg for name, evaluation in self.evaluations.items()}
        text = f"{self.best} is best of {len(scores)} on held-out problems with {100 * scores[self.best]:.1f} %"
        if self.honest_best is None:
            return f"{text}; the best of several is flattered by chance, and one sample a problem can't say by how much"
        return f"{text}; on samples that did not choose, the winner scores {100 * self.honest_best:.1f} %"


def checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first. Raises UserError where there is none."""
    found = sorted(path for path in (run / "checkpoints").glob("step-??????") if (path / STATE_FILE).is_file())
    if not found:
        raise UserError(f"{run}: no checkpoint here; give the directory of a run that saved one")
    return found


def held_out_problems(run: Path) -> list[Problem]:
    """The run's own held-out problems, as its evaluation before training stored them."""
    rows = read_whole_lines(run / "results" / "base" / COMPLETIONS)
    found = {
        row["problem_id"]: Problem(row["problem_id"], row["question"], row["gold"], HELD_OUT)
        for row in rows
        if row["benchmark"] == HELD_OUT
    }
    if not found:
        raise UserError(f"{run}: held out no problems (validation.num_problems is 0), so nothing can choose")
    return list(found.values())


def load_checkpoint(model: CausalLM, checkpoint: Path) -> None:
    """Put a checkpoint's weights into a model built as its recipe says. Raises UserError where they don't fit."""
    stored = load_file(checkpoint / STATE_FILE)
    weights = {name.removeprefix("weight/"): tensor for name, tensor in stored.items() if name.startswith("weight/")}
    parameters = dict(model.module.named_parameters())
    strange = [name for name in weights if name not in parameters or parameters[name].shape != weights[name].shape]
    if strange or not weights:
        raise UserError(f"{checkpoint}: holds another model than the run's recipe names; was the recipe edited?")
    for name, tensor in weights.items():
        parameters[name].data.copy_(tensor)


def select(places: list[Path], run: Callable[[Path], Evaluation]) -> Selection:
    """Evaluate every checkpoint with `run` and choose the best on the held-out set; the earlier one of equals."""
    evaluations = {place.name: run(place) for place in places}
    scores = {name: evaluation.benchmarks[HELD_OUT].avg for name, evaluation in evaluations.items()}
    best = max(scores, key=lambda name: scores[name])
    results = [evaluation.benchmarks[HELD_OUT] for evaluation in evaluations.values()]
    k = min(result.k for result in results)
    honest = None
    if k >= 2 and len({result.problem_ids for result in results}) == 1:
        verdicts = np.array([[[s.correct for s in row[:k]] for row in result.samples] for result in results])
        honest = stats.held_out_best(verdicts)  # [m, n, k]
    return Selection(evaluations, best, honest)
