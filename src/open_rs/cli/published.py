"""`open-rs published`: the paper's tables, the release's checkpoints and later re-evaluations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from open_rs.types import UserError


@click.command(
    epilog="""\b
Examples:
  open-rs published 1
  open-rs published checkpoints
  open-rs published 3 --run runs/mine"""
)
@click.argument("table", required=False)
@click.option("--run", type=click.Path(path_type=Path), help="Add a training run's cost to tables 2 and 3.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(table: str | None, run: Path | None, as_json: bool) -> None:
    """Print published numbers: TABLE is 1 to 5, `checkpoints` or `reevaluations`; without it, all of them.

    One-sample rows carry the 95 % interval that the paper does not give. `checkpoints` says what the best of 21 is
    worth.
    """
    names = list(TABLES) if table is None else [table.lower().removeprefix("table")]
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise UserError(f"{unknown[0]}: no such table; known: {', '.join(TABLES)}")
    cost = None if run is None else run_cost(run)
    if as_json:
        from open_rs.cli.results import echo_json

        values = {name: TABLES[name](cost, True) for name in names}
        echo_json(values if table is None else values[names[0]])
        return
    for name in names:
        TABLES[name](cost, False)


def run_cost(run: Path) -> dict[str, Any]:
    """A run's row for the cost tables, from its ledger."""
    ledger = run / "ledger.json"
    if not ledger.is_file():
        raise UserError(f"{run}: no ledger.json here; give the directory of a training run")
    totals = json.loads(ledger.read_text(encoding="utf-8"))
    return {
        "model": run.name,
        "rl_data": f"{totals['tokens'].get('sampled', 0):,} tokens",
        "hardware": "this run",
        "time": f"{totals['seconds'] / 3600:.2f}h",
        "cost_usd": None if totals["usd"] is None else round(totals["usd"], 2),
    }


def scores(cost: Any, as_json: bool) -> Any:
    from open_rs.evaluate import published

    rows = published.table1()
    return show_scores("Table 1: zero-shot pass@1", rows, as_json, published.data()["table1_note"])


def costs(number: str) -> Any:
    def show(cost: dict[str, Any] | None, as_json: bool) -> Any:
        from open_rs.evaluate import published

        rows = [*published.data()[f"table{number}"], *([cost] if cost is not None else [])]
        size = {"2": "7B", "3": "1.5B"}[number]
        return rows if as_json else show_records(f"Table {number}: data and cost, {size} models", rows)

    return show


def sizes(cost: Any, as_json: bool) -> Any:
    from open_rs.evaluate import published

    rows = published.data()["table4"]
    return rows if as_json else show_records("Table 4: benchmarks", rows)


def settings(cost: Any, as_json: bool) -> Any:
    from open_rs.evaluate import published

    values = published.data()["table5"]
    rows = [{"key": key, "value": value} for key, value in values.items()]
    return values if as_json else show_records("Table 5: hyper-parameters", rows)


def checkpoints(cost: Any, as_json: bool) -> Any:
    from dataclasses import asdict

    from open_rs.evaluate import published

    rows = published.checkpoints()
    swept = [published.sweep(rows, name) for name in ("aime24", "math_500", "amc23")]
    if as_json:
        return {"rows": show_scores("", rows, True, ""), "sweeps": [asdict(sweep) for sweep in swept]}
    return show_scores("The release's checkpoints, one sample a problem", rows, False, "\n".join(map(str, swept)))


def reevaluations(cost: Any, as_json: bool) -> Any:
    from open_rs.evaluate import published

    tables = published.reevaluations()
    return {source: show_scores(source, rows, as_json, "") for source, rows in tables.items()}


def show_scores(title: str, rows: Sequence[Any], as_json: bool, note: str) -> Any:
    from open_rs.cli.results import print_table, row_as_json
    from open_rs.evaluate.tables import results_table

    if as_json:
        return [row_as_json(row) for row in rows]
    click.echo(title)
    print_table(results_table(rows))
    click.echo(f"{note}\n" if note else "")
    return None


def show_records(title: str, rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from open_rs.cli.results import print_table

    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace("_", " ") for name in columns), box=None, header_style="bold")
    for row in rows:
        table.add_row(*("-" if row.get(name) is None else str(row[name]) for name in columns))
    click.echo(title)
    print_table(table)
    click.echo()


TABLES = {
    "1": scores,
    "2": costs("2"),
    "3": costs("3"),
    "4": sizes,
    "5": settings,
    "checkpoints": checkpoints,
    "reevaluations": reevaluations,
}
