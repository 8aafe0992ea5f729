"""Owns `open-rs audit`: which golds of a data set fail to grade themselves, and which look ambiguous."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from open_rs.data.sources import Loaded
    from open_rs.grading.audit import Audited, Finding


@click.command("audit")
@click.argument("data", metavar="DATA")
@click.option("--gold-field", help="The field that holds the gold; guessed from the usual names when absent.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Grading processes.")
@click.option("--show", default=20, show_default=True, type=click.IntRange(0), help="Findings of a kind to print.")
@click.option("--json", "as_json", is_flag=True, help="Print totals and all findings as JSON.")
def command(data: str, gold_field: str | None, workers: int, show: int, as_json: bool) -> None:
    r"""Find golds that fail to grade themselves.

    DATA is a .json, .jsonl or .parquet file (.gz too), or a data set of `open-rs sources`. Every gold is spelled
    another way (other fractions, spacing, `\left`) and compared with itself, with the equal-strings shortcut off.

    \b
    Examples:
      open-rs audit questions.jsonl
      open-rs audit math500.jsonl --gold-field solution
    """
    import json
    from dataclasses import asdict

    from open_rs.grading import Grader
    from open_rs.grading.audit import Audited, Finding, audit_golds

    loaded = _load(data, gold_field)
    with Grader(workers, timeout_seconds=60.0) as grader:  # a slow gold is no broken one
        found = audit_golds(((problem.id, problem.answer) for problem in loaded.problems), grader)
    unusable = tuple(Finding(row.id, "", row.reason) for row in loaded.dropped)
    found = Audited(found.num_golds + len(unusable), (*unusable, *found.failed), found.ambiguous)
    click.echo(json.dumps(asdict(found)) if as_json else _describe(found, show))


def _load(data: str, gold_field: str | None) -> Loaded:
    """Rows of a file, read by the rules of the source that its name belongs to, or of a named source."""
    from pathlib import Path

    from open_rs.data.sources import ANSWER_FIELDS, SOURCES, load_benchmark, read_rows, to_problems

    path = Path(data)
    if not path.exists() and data in SOURCES:
        return load_benchmark(data)
    stem = path.name.split(".")[0]
    source = next((source for source in SOURCES.values() if stem in (source.name, *source.files)), None)
    if source is None or gold_field is not None:
        fields = ANSWER_FIELDS if gold_field is None else (gold_field,)
        return to_problems(read_rows(path), data, path.name, answer_fields=fields)
    fields = (source.answer_field, *ANSWER_FIELDS)
    return to_problems(read_rows(path), data, source.name, answer_fields=fields, answer_rule=source.answer_rule)


def _describe(found: Audited, show: int) -> str:
    good = found.num_golds - len(found.failed)
    lines = [f"{good}/{found.num_golds} golds grade themselves"]
    for title, findings in (("fail", found.failed), ("look ambiguous", found.ambiguous)):
        if findings:
            lines += ["", f"{len(findings)} {title}:", *(_line(finding) for finding in findings[:show])]
        if len(findings) > show:
            lines.append(f"  ... and {len(findings) - show} more (--show {len(findings)})")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    return f"  {finding.id}  {finding.gold!r}: {finding.reason}"
