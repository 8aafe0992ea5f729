"""The data card: a README that the Hub and `datasets.load_dataset` understand and a person can judge the set by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from open_rs.data.curate import Step

LONGEST_QUOTE = 240
LABEL_WIDTH, BAR_WIDTH, BAR_HEIGHT = 260, 420, 22  # pixels of the drawing


def write_card(manifest: Mapping[str, Any], steps: Sequence[Step], rejects: Sequence[Mapping[str, Any]]) -> str:
    """Markdown with a YAML head that names the data files of each split."""
    parts = [
        _head(manifest),
        f"# {manifest['name']}\n\n{manifest['about']}\n\n{_counts(manifest)}",
        "## Funnel\n\n![rows kept after each step](funnel.svg)\n\n" + funnel_table(steps),
        "## Sources\n\n" + _origins(manifest),
        "## Contamination\n\n" + _contamination(manifest),
        "## Rows that were left out\n\n" + _rejects(rejects),
        "## Files\n\n" + _files(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def funnel_table(steps: Sequence[Step]) -> str:
    """The funnel as a Markdown table; the paper's counts stand beside ours where a recipe states them."""
    published = any(step.published_rows is not None for step in steps)
    lines = ["| step | rows in | kept | why rows were dropped |" + (" paper |" if published else "")]
    lines.append("|---|---:|---:|---|" + ("---:|" if published else ""))
    for step in steps:
        why = ", ".join(f"{reason} {count:,}" for reason, count in list(step.reasons.items())[:6]) or ""
        paper = "" if step.published_rows is None else f"{step.published_rows:,}"
        lines.append(
            f"| {step.name} | {step.rows_in:,} | {step.kept:,} | {why} |" + (f" {paper} |" if published else "")
        )
    return "\n".join(lines)


def funnel_drawing(steps: Sequence[Step]) -> str:
    """The funnel as an SVG: one bar a step, its light part dropped, with the counts beside it."""
    widest = max((step.rows_in for step in steps), default=0) or 1
    bars: list[str] = []
    for number, step in enumerate(steps):
        top = number * BAR_HEIGHT
        entered, kept = (BAR_WIDTH * rows / widest for rows in (step.rows_in, step.kept))
        bars.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{top + 15}" text-anchor="end">{escape(step.name)}</text>'
            f'<rect x="{LABEL_WIDTH}" y="{top + 3}" width="{entered:.1f}" height="16" fill="#d5dde5"/>'
            f'<rect x="{LABEL_WIDTH}" y="{top + 3}" width="{kept:.1f}" height="16" fill="#3b6ea5"/>'
            f'<text x="{LABEL_WIDTH + entered + 6:.1f}" y="{top + 15}">{step.kept:,} of {step.rows_in:,}</text>'
        )
    width, height = LABEL_WIDTH + BAR_WIDTH + 150, len(steps) * BAR_HEIGHT + 4
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" role="img">'
    return "\n".join([head, "<title>Rows kept after each step</title>", *bars, "</svg>\n"])


def _head(manifest: Mapping[str, Any]) -> str:
    licences = {origin["licence"] for origin in manifest["origins"]}
    licence = "mit" if licences == {"MIT"} else "other"
    lines = ["---", f"license: {licence}", "task_categories:", "- question-answering", "language:", "- en"]
    lines += [
        "tags:",
        "- mathematics",
        "- reinforcement-learning",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    lines += ["  - split: train", "    path: data/train.parquet"]
    if manifest["held_out_rows"]:
        lines += ["  - split: validation", "    path: data/validation.parquet"]
    return "\n".join([*lines, "---"])


def _counts(manifest: Mapping[str, Any]) -> str:
    held_out = f" and {manifest['held_out_rows']:,} held out as `validation`" if manifest["held_out_rows"] else ""
    sources = ", ".join(f"{name} {count:,}" for name, count in manifest["by_source"].items())
    levels = ", ".join(f"{name} {count:,}" for name, count in manifest["by_level"].items())
    return f"{manifest['rows']:,} problems{held_out}. By source: {sources}. By level: {levels}."


def _origins(manifest: Mapping[str, Any]) -> str:
    lines = [
        "| source | where from | licence | rows read | content (SHA-256 or fingerprint) |",
        "|---|---|---|---:|---|",
    ]
    for origin in manifest["origins"]:
        digest = str(origin["sha256"])[:16]
        lines.append(
            f"| {origin['name']} | {origin['place']} | {origin['licence']} | {origin['rows']:,} | `{digest}` |"
        )
    return "\n".join(lines)


def _contamination(manifest: Mapping[str, Any]) -> str:
    overlap = manifest["overlap"]
    checked = ", ".join(f"{name} ({count:,})" for name, count in overlap["checked_against"].items())
    if not checked:
        return "**Not checked against any benchmark.**"
    found = ", ".join(f"{name} {count}" for name, count in overlap["found"].items()) or "none"
    return (
        f"Checked against {checked}. Rows of this set that repeat a benchmark problem: {overlap['rows']} ({found}); "
        "the pairs stand side by side in `overlap.jsonl`, those that were dropped in `dropped.jsonl.gz`."
    )


def _rejects(rejects: Sequence[Mapping[str, Any]]) -> str:
    if not rejects:
        return "None."
    lines = ["The first rows of each reason; all of them are in `dropped.jsonl.gz`.", ""]
    lines += [f"- **{row['step']}: {row['reason']}** (`{row['id']}`): {_quote(row['question'])}" for row in rejects]
    return "\n".join(lines)


def _quote(text: str) -> str:
    flat = " ".join(text.split()).replace("`", "'")
    return f"`{flat[:LONGEST_QUOTE]}{'...' if len(flat) > LONGEST_QUOTE else ''}`"


def _files(manifest: Mapping[str, Any]) -> str:
    lines = ["| file | bytes | SHA-256 |", "|---|---:|---|"]
    for name, facts in manifest["files"].items():
        lines.append(f"| `{name}` | {facts['bytes']:,} | `{facts['sha256']}` |")
    return "\n".join(lines)
