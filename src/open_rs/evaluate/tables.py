"""Results as text: terminal tables, Markdown, LaTeX and the `model-index` block of a model card. Points, not shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from open_rs import stats
from open_rs.data.sources import SOURCES
from open_rs.evaluate.compare import Comparisons, RowComparison
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.rows import Cell, Row

TITLES = {
    "aime24": "AIME24", "aime25": "AIME25", "math_500": "MATH-500", "amc23": "AMC23", "amc22_23": "AMC22-23",
    "minerva": "Minerva", "olympiadbench": "OlympiadBench", "gsm8k": "GSM8K",
}  # fmt: skip
AVERAGE = "avg"


def results_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """One line a model, one column a benchmark, each score with its 95 % interval below it where there is one."""
    table = Table("model", *map(heading, columns_of(rows)), title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(row.label, *(_terminal_cell(cell) for cell in _cells(row, columns_of(rows))))
    return table


def details_table(evaluation: Evaluation) -> Table:
    """One line a benchmark: size, accuracy, where its error comes from, pass@k, votes and what went wrong."""
    table = Table(
        "benchmark", "n", "k", "avg@k", "95 % interval", "error: sampling", "problems", "pass@k", "maj@k",
        "truncated", "no answer", "tokens", box=None, header_style="bold",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for name, result in evaluation.benchmarks.items():
        summary, signs = result.summary(), result.diagnostics
        table.add_row(
            heading(name),
            str(summary["n"]),
            str(result.k),
            points(result.avg),
            interval(result.ci95),
            _maybe(summary["sampling_error"]),
            _maybe(summary["problem_error"]),
            points(result.pass_at[result.k]) if result.k > 1 else "",
            points(result.majority_at[result.k]) if result.k > 1 else "",
            _maybe(signs["truncated"]),
            points(signs["no_answer"]),
            _tokens(signs["tokens"], "mean"),
        )
    return table


def signs_table(evaluation: Evaluation) -> Table:
    """One line a benchmark: what stood out in the completions, their length right and wrong, the grader's reasons."""
    table = Table(
        "benchmark", "looping", "other script", "answer only in reasoning", "outside a box", "tokens right", "wrong",
        "95th percentile", "reasons", box=None, header_style="bold",
    )  # fmt: skip
    for column in table.columns[1:-1]:
        column.justify = "right"
    for name, result in evaluation.benchmarks.items():
        signs = result.diagnostics
        table.add_row(
            heading(name),
            *(points(signs[key]) for key in ("looping", "foreign", "answer_only_in_reasoning", "outside_box")),
            _tokens(signs["tokens_right"], "mean"),
            _tokens(signs["tokens_wrong"], "mean"),
            _tokens(signs["tokens"], "p95"),
            ", ".join(f"{reason} {count:,}" for reason, count in list(signs["reasons"].items())[:4]),
        )
    return table


def remarks(evaluation: Evaluation) -> list[str]:
    """What was left out or corrected, and what weakens the numbers, in sentences."""
    found = []
    for name, result in evaluation.benchmarks.items():
        if result.left_out:
            first = next(iter(result.left_out.values()))
            apart = result.avg_with_unsolvable
            kept = "" if apart is None else f"; {points(apart)} with those that were asked"
            found.append(f"{heading(name)}: {counted(len(result.left_out), 'problem')} left out ({first}){kept}")
        if result.corrected_golds:
            old, new = next(iter(result.corrected_golds.values()))
            golds = counted(len(result.corrected_golds), "gold")
            found.append(f"{heading(name)}: {golds} corrected (`{old}` to `{new}`, ...); --raw-gold keeps them")
    return [*found, *evaluation.warnings]


def comparison_table(found: Comparisons) -> Table:
    """One line a benchmark and one for all of them: both scores, the paired difference, its interval and p."""
    table = Table(
        "benchmark", "n", found.baseline, found.candidate, "difference", "95 % interval", "p", "p (Holm)",
        "detectable", "narrower than unpaired", box=None, header_style="bold",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found.benchmarks.values():
        difference = row.difference
        table.add_row(
            heading(row.name),
            str(difference.num_problems),
            points(row.baseline),
            points(row.candidate),
            f"{100 * difference.value:+.1f}",
            signed_interval(difference.ci95),
            p_value(difference.p_value),
            p_value(row.adjusted_p),
            points(row.detectable),
            f"{row.gain_from_pairing:.1f} x",
        )
    if len(found.benchmarks) > 1:
        pooled = found.pooled
        cells = [f"{100 * pooled.value:+.1f}", signed_interval(pooled.ci95), p_value(pooled.p_value), "", "", ""]
        table.add_row("average", str(pooled.num_problems), "", "", *cells, style="bold")
    return table


def unpaired_table(found: RowComparison) -> Table:
    """One line a benchmark: both scores, the difference, and its interval where both sides have one."""
    table = Table("benchmark", found.baseline, found.candidate, "difference", "95 % interval, unpaired", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in found.benchmarks.values():
        table.add_row(
            heading(row.name),
            points(row.baseline),
            points(row.candidate),
            f"{100 * (row.candidate - row.baseline):+.1f}",
            "-" if row.ci95 is None else signed_interval(row.ci95),
        )
    return table


def markdown(rows: Sequence[Row]) -> str:
    """A GitHub table: score and interval in one cell."""
    columns = columns_of(rows)
    lines = [f"| model | {' | '.join(map(heading, columns))} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {row.label} | {' | '.join(map(_inline_cell, _cells(row, columns)))} |" for row in rows]
    return "\n".join(lines) + "\n"


def latex(rows: Sequence[Row]) -> str:
    """A booktabs table; intervals are set small behind the score."""
    columns = columns_of(rows)
    lines = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule"]
    lines += [" & ".join(["Model", *map(heading, columns)]) + " \\\\", "\\midrule"]
    lines += [" & ".join([_escape(r.label), *map(_latex_cell, _cells(r, columns))]) + " \\\\" for r in rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def model_index(evaluation: Evaluation) -> dict[str, Any]:
    """The `model-index` of a Hub model card: one result a benchmark, with its interval and protocol beside it."""
    protocol = evaluation.fingerprint.get("protocol") or {}
    return {
        "model-index": [
            {
                "name": evaluation.model.rpartition("/")[2],
                "results": [_index_entry(name, evaluation, protocol) for name in evaluation.benchmarks],
            }
        ]
    }


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every benchmark of any row, known ones first in the order of `TITLES`, then the average where a row has one."""
    present = dict.fromkeys(name for row in rows for name in row.cells)
    ordered = [name for name in TITLES if name in present] + [name for name in present if name not in TITLES]
    return [*ordered, AVERAGE] if len(ordered) > 1 and any(row.avg for row in rows) else ordered


def heading(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))


def counted(number: int, noun: str) -> str:
    """`1 gold`, `62 golds`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def points(share: float) -> str:
    return f"{100 * share:.1f}"


def interval(found: stats.Interval) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}"


def signed_interval(found: stats.Interval) -> str:
    return f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _cells(row: Row, columns: Sequence[str]) -> list[Cell | None]:
    return [row.avg if name == AVERAGE else row.cells.get(name) for name in columns]


def _terminal_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell.ci95 is not None:
        return f"{points(cell.value)}\n[dim]{100 * cell.ci95.low:.1f}-{100 * cell.ci95.high:.1f}[/dim]"
    return points(cell.value) + (f" ± {points(cell.spread)}" if cell.spread is not None else "")


def _inline_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    if cell.ci95 is not None:
        return f"{points(cell.value)} ({100 * cell.ci95.low:.1f}-{100 * cell.ci95.high:.1f})"
    return points(cell.value) + (f" ± {points(cell.spread)}" if cell.spread is not None else "")


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    if cell.ci95 is None:
        return points(cell.value) + (f" $\\pm$ {points(cell.spread)}" if cell.spread is not None else "")
    return f"{points(cell.value)} {{\\scriptsize [{100 * cell.ci95.low:.1f}, {100 * cell.ci95.high:.1f}]}}"


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "_%&#$" else letter for letter in text)


def _tokens(counts: Mapping[str, float] | None, key: str) -> str:
    return "" if counts is None else f"{counts[key]:,.0f}"


def _maybe(share: float | None) -> str:
    return "" if share is None else points(share)


def _index_entry(name: str, evaluation: Evaluation, protocol: Mapping[str, Any]) -> dict[str, Any]:
    result = evaluation.benchmarks[name]
    source = SOURCES.get(name)
    args = {key: protocol[key] for key in ("temperature", "top_p", "max_tokens") if key in protocol}
    dataset = {"name": heading(name), "type": (source.hub_id if source else None) or name}
    metric = {
        "type": f"avg@{result.k}",
        "name": "accuracy, 95 % interval " + interval(result.ci95),
        "value": round(100 * result.avg, 2),
        "args": args,
    }
    return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": [metric]}
