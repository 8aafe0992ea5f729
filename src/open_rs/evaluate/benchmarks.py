"""The sets of an evaluation by name: benchmarks of the sources' table, the arithmetic task, or a person's own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from open_rs.config.schema import ArithmeticConfig
from open_rs.data import arithmetic
from open_rs.data.sources import SOURCES, Loaded, benchmarks, load_benchmark, read_rows, to_problems
from open_rs.types import Problem, UserError

ARITHMETIC = "arithmetic"
ARITHMETIC_PROBLEMS = 256


@dataclass(frozen=True, slots=True)
class Sets:
    """Problems by set, and the rows that loading left out (set -> problem -> reason)."""

    problems: Mapping[str, Sequence[Problem]]
    dropped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def load_sets(names: Sequence[str], data: Path | None = None, limit: int | None = None) -> Sets:
    """Load sets by name or file, each cut to its first `limit` problems.

    `data` names a folder with local copies; without it benchmarks come from the Hub. Raises UserError for a name that
    is no benchmark, and for a file or column that is missing.
    """
    loaded = {set_name(name): _load(name, data, limit) for name in dict.fromkeys(names)}
    return Sets(
        {name: part.problems for name, part in loaded.items()},
        {name: {row.id: row.reason for row in part.dropped} for name, part in loaded.items() if part.dropped},
    )


def set_name(name: str) -> str:
    """`mine/exam.jsonl.gz` is called `exam`; a benchmark keeps its name."""
    return Path(name).name.split(".")[0] if _is_file(name) else name


def _load(name: str, data: Path | None, limit: int | None) -> Loaded:
    if _is_file(name):
        called = set_name(name)
        loaded = to_problems(read_rows(Path(name)), name, called)
        problems = loaded.problems if limit is None else loaded.problems[:limit]
        return Loaded(problems, loaded.dropped)
    if name == ARITHMETIC:
        return Loaded(tuple(arithmetic.generate(ArithmeticConfig(), "held_out", limit or ARITHMETIC_PROBLEMS)))
    known = [source.name for source in benchmarks()]
    if name not in known:
        raise UserError(_unknown(name, [*known, ARITHMETIC]))
    return load_benchmark(name, data, limit)


def _is_file(name: str) -> bool:
    return "/" in name or Path(name).suffix in (".jsonl", ".json", ".gz", ".csv", ".parquet")


def _unknown(name: str, known: Sequence[str]) -> str:
    if name in SOURCES:
        return f"{name}: a training set, not a benchmark; known benchmarks: {', '.join(known)}"
    near = get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.4)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{name}: no such benchmark; {hint}Known: {', '.join(known)}, or a file such as ./exam.jsonl"
