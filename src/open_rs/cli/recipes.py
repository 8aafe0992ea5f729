"""`open-rs recipes`: what ships with the package, and what each costs."""

from __future__ import annotations

import json

import click


@click.command(epilog="Example:  open-rs recipes open-rs3")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--markdown", is_flag=True, help="Print docs/recipes.md: recipes, known keys, memory plans.")
def command(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the shipped recipes with their cost, or show one with the reason for each of its settings."""
    from open_rs.config.load import load_recipe, resolved_yaml, shipped_names

    if markdown:
        from open_rs.doctor.handbook import handbook

        click.echo(handbook(), nl=False)
    elif name is not None:
        recipe = load_recipe(name)
        click.echo(
            json.dumps(recipe.model_dump(mode="json"), indent=2) if as_json else resolved_yaml(recipe), nl=as_json
        )
    elif as_json:
        from open_rs.doctor.cost import listing

        click.echo(json.dumps([listing(load_recipe(known)) for known in shipped_names()], indent=2))
    else:
        _print_table(shipped_names())


def _print_table(names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from open_rs.config.load import load_recipe
    from open_rs.doctor.cost import listing

    table = Table("recipe", "completions", "of tokens", "cost", "about", box=None, header_style="bold")
    for known in names:
        row = listing(load_recipe(known))
        table.add_row(
            known,
            f"{row['completions']:,}",
            f"{row['max_completion_length']:,}",
            row["cost"],
            row["about"].partition(";")[0],
        )
    Console(highlight=False).print(table)
