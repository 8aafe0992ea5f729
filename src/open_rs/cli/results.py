"""How the commands print evaluations and comparisons, as tables or as JSON."""

from __future__ import annotations

import json
from typing import Any

import click


def print_table(table: Any) -> None:
    """Print a rich table to standard output, in full width where that is a file."""
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def row_as_json(row: Any) -> dict[str, Any]:
    """A row's cells in shares."""
    cells = {name: cell_as_json(cell) for name, cell in row.cells.items()}
    return {"model": row.label, "benchmarks": cells, "avg": None if row.avg is None else cell_as_json(row.avg)}


def cell_as_json(cell: Any) -> dict[str, Any]:
    values = {
        "value": cell.value,
        "ci95": None if cell.ci95 is None else [cell.ci95.low, cell.ci95.high],
        "standard_deviation": cell.spread,
        "n": cell.problems,
        "k": cell.samples,
    }
    return {name: value for name, value in values.items() if value is not None}


def show_difference(candidate: Any, baseline: Any, as_json: bool) -> Any:
    """Candidate minus baseline, printed or as JSON: paired, or unpaired where one side is a published row."""
    from open_rs.evaluate.compare import compare, compare_rows
    from open_rs.evaluate.result import Evaluation
    from open_rs.evaluate.rows import row_of
    from open_rs.evaluate.tables import comparison_table, unpaired_table

    if isinstance(candidate, Evaluation) and isinstance(baseline, Evaluation):
        found = compare(candidate, baseline)
        table = comparison_table(found)
    else:
        new, old = (row_of(side) if isinstance(side, Evaluation) else side for side in (candidate, baseline))
        found = compare_rows(new, old)
        table = unpaired_table(found)
    if not as_json:
        print_table(table)
        for note in found.notes:
            click.echo(f"note: {note}")
    return found.to_json()
