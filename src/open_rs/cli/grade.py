"""Owns `open-rs grade`: a file of completions in, a file of verdicts out."""

from __future__ import annotations

from typing import Any

import click


@click.command("grade")
@click.argument("source", metavar="IN.jsonl", type=click.Path(exists=True, dir_okay=False))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Where verdicts go; .gz is compressed.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Grading processes.")
@click.option(
    "--timeout",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds an answer may take.",
)
@click.option("--fallback", is_flag=True, help="Accept answers outside a box, as `open-rs evaluate` does.")
@click.option("--reasoning-open", is_flag=True, help="The prompts end inside `<think>`.")
@click.option("--relative-tolerance", type=float, help="How far a number may lie from the gold, as a share of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
def command(source: str, out: str, as_json: bool, **options: Any) -> None:
    r"""Grade completions from a file.

    Rows `{"id", "gold", "completion"}` become `{"id", "correct", "extracted", "reason", "ms"}`; `correct` is null
    where the gold is at fault. A row may carry its own "relative_tolerance". Files ending in .gz are read and written
    compressed.

    \b
    Example:
      echo '{"id": 1, "gold": "1/2", "completion": "So \\boxed{0.5}"}' > in.jsonl
      open-rs grade in.jsonl --out verdicts.jsonl
    """
    import json

    from open_rs.grading.files import grade_file

    totals = grade_file(source, out, progress=not as_json, **options)
    if as_json:
        click.echo(json.dumps(totals.as_dict()))
    else:
        click.echo(totals.describe())
