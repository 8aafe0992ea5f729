"""`open-rs train`: run a recipe, or go on with a run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from open_rs.types import UserError


@click.command(
    context_settings={"ignore_unknown_options": False},
    epilog="Example:  open-rs train demo train.max_steps=5 validation.num_problems=0 --out runs/short",
)
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[section.key=value ...]")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; default: the next free runs/RECIPE.")
@click.option("--resume", "resumed", type=click.Path(path_type=Path), help="Go on with the run in this directory.")
@click.option("--push", metavar="REPO_ID", help="Upload the trained model when the run has ended, private.")
@click.option("--written-for", help="For a file in TRL's style: the TRL it was written for, like trl==0.15.")
@click.option("--num-processes", type=click.IntRange(min=1), help="For a file in TRL's style: processes that trained.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resumed: Path | None,
    push: str | None,
    written_for: str | None,
    num_processes: int | None,
    as_json: bool,
) -> None:
    """Train a model: RECIPE is a shipped name (see `open-rs recipes`) or a YAML file.

    Everything lies in the run's directory: recipe, metrics, completions, checkpoints, the trained model, a report.
    A run that was cut off goes on with --resume from its newest checkpoint.
    """
    from open_rs.cli.show import finish_run
    from open_rs.cli.translate import show_translation
    from open_rs.config.load import load
    from open_rs.report.live import Live

    if (recipe is None) == (resumed is None):
        raise UserError("train: give a recipe, or --resume DIR to go on with a run; see `open-rs recipes`")
    if resumed is not None and overrides:
        raise UserError(f"--resume {resumed}: a run goes on with its own recipe; leave out {overrides[0]}")
    loaded = None if recipe is None else load(recipe, overrides, written_for, num_processes)
    if loaded is not None and loaded.translation is not None:
        show_translation(loaded.translation)
    from open_rs.train.budget import process_started
    from open_rs.train.run import is_main_process, resume, silent, train

    with Live() as live:
        observe = live if is_main_process() else silent
        if loaded is None:
            assert resumed is not None
            directory = resumed
            summary = resume(directory, observe, process_started())
        else:
            directory = out or _default_directory(loaded.recipe.name)
            summary = train(loaded.recipe, directory, observe, process_started())
    if not is_main_process():
        return
    finish_run(directory, summary)
    if push is not None:
        _release(directory, push)
    if as_json:
        click.echo(json.dumps(summary, indent=2))


def _default_directory(name: str) -> Path:
    from open_rs.run_dir import next_free

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("--out: several processes must mean one run directory; name it, for instance --out runs/mine")
    return next_free(Path("runs") / name)


def _release(directory: Path, repo_id: str) -> None:
    from open_rs.cli.release import prepare_run
    from open_rs.report.hub import push

    click.echo(f"pushed   {push(prepare_run(directory, repo_id), repo_id, 'model', private=True)}", err=True)
