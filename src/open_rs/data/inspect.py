"""Looking at finished sets: what of one repeats a benchmark, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_rs.data.overlap import Overlap, find_overlaps
from open_rs.data.rows import iterate_problems, read_rows
from open_rs.data.stages import same_answer
from open_rs.data.text import collapse
from open_rs.grading import Grader
from open_rs.types import Problem, UserError


@dataclass(frozen=True, slots=True)
class Difference:
    """How set B differs from set A. Rows are matched by their problem's text with white space normalised."""

    rows: tuple[int, int]
    only_first: tuple[Problem, ...]
    only_second: tuple[Problem, ...]
    changed: tuple[tuple[Problem, Problem, tuple[str, ...]], ...]  # the two rows and the columns that differ
    by_source: Mapping[str, tuple[int, int]]


def check_overlap(problems: Sequence[Problem], items: Sequence[Problem]) -> list[Overlap]:
    """Every problem that repeats a benchmark item."""
    if not items:
        return []
    with Grader() as grader:
        return find_overlaps(problems, items, same_answer(grader))


def read_set(place: Path) -> list[Problem]:
    """The rows of a curated directory or data file, under their own ids. Raises UserError where there are none."""
    found = [row for row in iterate_problems(read_rows(place), str(place), "") if isinstance(row, Problem)]
    if not found:
        raise UserError(f"{place}: no usable row in it; a row needs a question and an answer")
    return [
        Problem(row.id.removeprefix(":"), row.question, row.answer, str(row.meta.get("source") or ""), row.meta)
        for row in found
    ]


def verify_set(directory: Path) -> None:
    """Check a written set before it is released. Raises UserError where a file is not the one in its manifest, or where
    rows repeat a benchmark."""
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    for name, facts in manifest.get("files", {}).items():
        file = directory / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != facts["sha256"]:
            raise UserError(f"{file}: is not the file that manifest.json describes; run the curation again")
    overlaps = manifest.get("overlap", {}).get("rows", 0)
    if overlaps:
        raise UserError(
            f"{directory}: {overlaps} rows repeat a benchmark (overlap.jsonl); a set like that is not released"
        )


def difference(first: Sequence[Problem], second: Sequence[Problem]) -> Difference:
    """Compare two sets row by row."""
    ours = {collapse(problem.question): problem for problem in first}
    theirs = {collapse(problem.question): problem for problem in second}
    changed = [
        (problem, theirs[text], columns)
        for text, problem in ours.items()
        if text in theirs and (columns := _changed_columns(problem, theirs[text]))
    ]
    counts = Counter(problem.source for problem in first), Counter(problem.source for problem in second)
    return Difference(
        rows=(len(first), len(second)),
        only_first=tuple(problem for text, problem in ours.items() if text not in theirs),
        only_second=tuple(problem for text, problem in theirs.items() if text not in ours),
        changed=tuple(changed),
        by_source={name: (counts[0][name], counts[1][name]) for name in sorted(counts[0] | counts[1])},
    )


def _changed_columns(one: Problem, other: Problem) -> tuple[str, ...]:
    names = ("answer", "level", "pass_rate", "source")
    return tuple(name for name in names if _value(one, name) != _value(other, name))


def _value(problem: Problem, name: str) -> Any:
    return problem.answer if name == "answer" else problem.meta.get(name)
