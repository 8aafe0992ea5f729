"""`open-rs compare`: differences between evaluations, paired by problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from open_rs.types import UserError


@click.command(
    epilog="""\b
Examples:
  open-rs compare runs/demo
  open-rs compare results/base results/mine
  open-rs compare open-rs3 results/mine"""
)
@click.argument("sides", nargs=-1, required=True, metavar="BASELINE CANDIDATE [CANDIDATE ...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(sides: tuple[str, ...], as_json: bool) -> None:
    """Compare evaluations: every candidate against the first.

    A side is a directory that `open-rs evaluate` wrote, or the name of a published model. A training run alone stands
    for its own evaluations before and after. Differences are paired by problem, with 95 % intervals, sign-flip p values
    and Holm's correction over benchmarks; against a published row they can't be paired.
    """
    from open_rs.cli.results import echo_json, show_difference

    opened = told_apart([side for name in sides for side in open_side(name, alone=len(sides) == 1)], sides)
    if len(opened) < 2:
        raise UserError(f"compare: {sides[0]} is one side; give a baseline and a candidate, or a training run")
    found = [show_difference(candidate, opened[0], as_json) for candidate in opened[1:]]
    if as_json:
        echo_json(found if len(found) > 1 else found[0])


def open_side(name: str, alone: bool) -> list[Any]:
    """The evaluation in a directory, both of a run that stands alone, or a published row."""
    from open_rs.evaluate import published
    from open_rs.evaluate.result import Evaluation

    place = Path(name)
    if (place / "recipe.yaml").is_file():
        sides = [labelled(place, "base"), labelled(place, "trained")]
        return sides if alone else sides[1:]
    return [Evaluation.load(place)] if place.exists() else [published.require(name)]


def told_apart(opened: list[Any], names: tuple[str, ...]) -> list[Any]:
    """The sides, with their directories behind the names of models that stand there twice."""
    from dataclasses import replace

    from open_rs.evaluate.result import Evaluation

    models = [side.model for side in opened if isinstance(side, Evaluation)]
    if len(opened) != len(names) or len(set(models)) == len(models):
        return opened
    return [
        replace(side, model=f"{side.model} ({Path(name).name})") if isinstance(side, Evaluation) else side
        for side, name in zip(opened, names, strict=True)
    ]


def labelled(run: Path, when: str) -> Any:
    """The evaluation that a run made before (`base`) or after (`trained`), named so."""
    from dataclasses import replace

    from open_rs.evaluate.result import Evaluation

    return replace(Evaluation.load(run / "results" / when), model=f"{run.name}, {when}")
