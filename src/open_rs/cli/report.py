"""`open-rs report`: one HTML file from run directories."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="Example:  open-rs report runs/demo runs/demo-2 --out both.html")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="HTML file; default: report.html in the first run.")
def command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Write a self-contained HTML report: before and after, curves, completions, what ran and what it cost."""
    from open_rs.report.page import write_report

    click.echo(write_report(runs, out or runs[0] / "report.html"))
