"""Owns `open-rs audit`: which golds of a data set fail to grade themselves, and which look ambiguous."""

from __future__ import annotations

import click


@click.command("audit")
@click.argument("data", metavar="DATA")
@click.option("--gold-field", help="The field that holds the gold; guessed from the usual names when absent.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Grading processes.")
@click.option("--show", default=20, show_default=True, type=click.IntRange(0), help="How many findings to print.")
@click.option("--json", "as_json", is_flag=True, help="Print totals and all findings as JSON.")
def command(data: str, gold_field: str | None, workers: int, show: int, as_json: bool) -> None:
    r"""Find golds that fail to grade themselves.

    DATA is a .jsonl, .jsonl.gz, .json or .parquet file, or the name of a benchmark of `open-rs sources`. Every gold is spelled
    another way (other fractions, spacing, `\left`) and compared with itself, with the equal-strings shortcut off.

    \b
    Examples:
      open-rs audit questions.jsonl
      open-rs audit questions.jsonl --gold-field solution
    """
    import json

    from open_rs.grading.files import audit_file

    found = audit_file(data, gold_field, workers)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        click.echo(found.describe(show))
