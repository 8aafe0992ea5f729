"""What commands print when a run ends: the claim in one table, and where to look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MEASURES = (("avg", "sampled"), ("greedy", "greedy"), ("pass@8", "one of 8 right"))


def finish_run(directory: Path, summary: Mapping[str, Any]) -> None:
    """Write the report beside the run and print its headline to standard error, so that `--json` stays clean."""
    from open_rs.report.page import write_report

    console = Console(stderr=True, highlight=False)
    report = write_report([directory], directory / "report.html")
    if "difference" in summary:
        console.print(before_and_after(summary))
        console.print(sentence(summary))
    console.print(f"model    {directory / 'model'}\nsummary  {directory / 'summary.json'}\nreport   {report}")


def before_and_after(summary: Mapping[str, Any]) -> Table:
    """Scores of every held-out set before and after, with the paired difference and its interval where there is one."""
    from open_rs.report.card import SETS

    table = Table("right answers", "before", "after", "difference", "95 % interval", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, sides in summary["sets"].items():
        for key, words in MEASURES:
            if key not in sides["base"]:
                continue
            difference = sides["differences"].get(key)
            cells = ["", ""]
            if difference is not None:
                low, high = difference["ci95"]
                cells = [f"{100 * difference['value']:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}"]
            before, after = (f"{100 * sides[side][key]:.1f} %" for side in ("base", "trained"))
            table.add_row(f"{str(SETS.get(name, name)).split(' than')[0]}, {words}", before, after, *cells)
    return table


def sentence(summary: Mapping[str, Any]) -> str:
    """What the paired interval says, in words."""
    low, high = summary["difference"]["ci95"]
    p = summary["difference"]["p_value"]
    words = "not luck" if low > 0 else "a loss" if high < 0 else "could be luck"
    p_value = "< 0.0001" if p < 1e-4 else f"= {p:.4f}"
    return f"{words}: p {p_value}, over the same {summary['base']['num_problems']} problems before and after"
