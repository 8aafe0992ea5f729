"""What a person takes away from an evaluation: Markdown, LaTeX, a `model-index` block and figures."""

from __future__ import annotations

from pathlib import Path

import yaml

from open_rs.evaluate import published, tables
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.rows import row_of
from open_rs.run_dir import RunDir


def export(evaluation: Evaluation, directory: Path) -> list[Path]:
    """Write `results.md`, `results.tex`, `model-index.yaml` and the figures into `directory`; returns their paths."""
    from open_rs.evaluate.plots import draw

    texts = {
        "results.md": markdown_page(evaluation),
        "results.tex": tables.latex([row_of(evaluation)]),
        "model-index.yaml": yaml.safe_dump(tables.model_index(evaluation), sort_keys=False, allow_unicode=True),
    }
    for name, text in texts.items():
        RunDir(directory).write_text(name, text)
    return [*(directory / name for name in texts), *draw([evaluation], directory)]


def markdown_page(evaluation: Evaluation) -> str:
    """The table, how it was asked, claims, and what weakens it."""
    protocol = evaluation.fingerprint.get("protocol")
    parts = [tables.markdown([row_of(evaluation)])]
    if protocol is not None:
        asked = f"temperature {protocol['temperature']}, top_p {protocol['top_p']}, {protocol['max_tokens']:,} tokens"
        samples = ", ".join(f"{tables.heading(n)} {r.k}" for n, r in evaluation.benchmarks.items())
        parts.append(f"Protocol {protocol['name']}: {asked}; samples a problem: {samples}. Intervals are 95 %.\n")
    notes = [*map(str, published.claims(evaluation)), *tables.remarks(evaluation)]
    parts += ["".join(f"* {note}\n" for note in notes)] if notes else []
    return "\n".join(parts)
