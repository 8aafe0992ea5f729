"""`open-rs sources`: the table of training sets and benchmarks."""

from __future__ import annotations

import json

import click


@click.command(epilog="Example:  open-rs sources --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List known training sets and benchmarks, with Hub ids and the local file names that are found."""
    from rich.console import Console
    from rich.table import Table

    from open_rs.data.sources import SOURCES

    if as_json:
        rows = [
            {"name": s.name, "hub_id": s.hub_id, "split": s.split, "rows": s.num_rows, "held_out": s.held_out}
            for s in SOURCES.values()
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("name", "rows", "use", "Hub data set", "local names", box=None, header_style="bold")
    for s in SOURCES.values():
        rows, use = f"{s.num_rows:,}" if s.num_rows else "", "benchmark" if s.held_out else "training"
        table.add_row(s.name, rows, use, s.hub_id or "generated", ", ".join((s.name, *s.files)) if s.hub_id else "")
    Console().print(table)
