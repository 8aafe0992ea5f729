"""`open-rs translate`: a recipe written for TRL, open-r1 or open-rs, in sections, with a line for every key."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from open_rs.types import UserError


@click.command(
    epilog="Example:  open-rs translate grpo.yaml --written-for trl==0.15 --num-processes 3 --out recipe.yaml"
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--written-for", help="The TRL that the file was written for, like trl==0.15; guessed from its keys.")
@click.option("--num-processes", type=click.IntRange(min=1), help="Processes that trained; guessed where absent.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the recipe here, not to the screen."
)
@click.option("--json", "as_json", is_flag=True, help="Print recipe and notes as JSON.")
def command(recipe: Path, written_for: str | None, num_processes: int | None, out: Path | None, as_json: bool) -> None:
    """Translate a flat RECIPE (TRL's GRPOConfig, open-r1, open-rs) into sections.

    Every key gets one line: kept, renamed, pinned to the default of its day, or ignored with the reason; a key that
    can't be had is refused. `open-rs train RECIPE` translates in the same way.
    """
    from open_rs.config.load import load, resolved_yaml

    loaded = load(recipe, written_for=written_for, processes=num_processes)
    if loaded.translation is None:
        raise UserError(f"{recipe}: has sections already, so there is nothing to translate; train it as it is")
    if out is not None:
        if out.exists():
            raise UserError(f"{out}: exists already; choose another name with --out")
        out.write_text(resolved_yaml(loaded.recipe), encoding="utf-8")
    if as_json:
        notes = [asdict(note) for note in loaded.translation.notes]
        facts = {"written_for": loaded.translation.written_for, "num_processes": loaded.translation.processes}
        click.echo(json.dumps({**facts, "notes": notes, "recipe": loaded.recipe.model_dump(mode="json")}, indent=2))
        return
    show_translation(loaded.translation)
    click.echo(f"written to {out}" if out is not None else resolved_yaml(loaded.recipe), err=out is not None)


def show_translation(translation: Any) -> None:
    """Print to standard error what became of every key, what was kept first."""
    click.echo(f"written for {translation.written_for}, trained by {translation.processes} process(es)", err=True)
    order = ("kept", "renamed", "pinned", "ignored")
    for note in sorted(translation.notes, key=lambda note: order.index(note.outcome)):
        click.echo(f"  {note}", err=True)
