"""Owns grading a whole file: rows in, verdicts out in the same order, totals at the end."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from open_rs.grading.grader import Grader, Pending
from open_rs.types import UserError

_UNANSWERED_AT_MOST = 4096  # rows handed to the grader and not yet written
_FIELDS = ("gold", "completion")


@dataclass
class Totals:
    """What a file held: verdicts by outcome and by reason, and how long it took."""

    rows: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The totals as plain values."""
        return {
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.rows / self.seconds, 1) if self.seconds else None,
            "outcomes": dict(self.outcomes),
            "reasons": dict(self.reasons.most_common()),
        }

    def describe(self) -> str:
        """The totals as text for a person."""
        lines = [f"{reason:>16}  {count}" for reason, count in self.reasons.most_common()]
        rate = self.rows / self.seconds if self.seconds else 0.0
        heading = ", ".join(f"{self.outcomes[name]} {name}" for name in ("right", "wrong", "unscorable"))
        return "\n".join([f"{self.rows} rows: {heading}", *lines, f"{self.seconds:.1f} s, {rate:,.0f} rows/s"])


def grade_file(
    source: str | Path,
    out: str | Path,
    *,
    workers: int = 2,
    timeout: float = 5.0,
    fallback: bool = False,
    reasoning_open: bool = False,
    relative_tolerance: float | None = None,
    progress: bool = False,
) -> Totals:
    """Grade rows `{"id", "gold", "completion"}`; `ms` in the output is the time that the row took, waiting for a free
    worker not counted.

    Raises `UserError` for a row that is no JSON object or lacks a field, with its line number.
    """
    totals, started = Totals(), time.perf_counter()
    waiting: deque[tuple[Any, Pending]] = deque()
    with Grader(workers, timeout) as grader, open_text(out, "w") as sink, _progress(progress, source) as advance:
        for number, row in enumerate(read_rows(source), 1):
            gold, completion = (_field(row, name, source, number) for name in _FIELDS)
            pending = grader.submit(
                gold,
                completion,
                reasoning_open=reasoning_open,
                fallback=fallback,
                relative_tolerance=row.get("relative_tolerance", relative_tolerance),
            )
            waiting.append((row.get("id", number), pending))
            while waiting and (waiting[0][1].done() or len(waiting) > _UNANSWERED_AT_MOST):
                _write(sink, *waiting.popleft(), totals)
                advance()
        for identity, pending in waiting:
            _write(sink, identity, pending, totals)
            advance()
    totals.seconds = time.perf_counter() - started
    return totals


def read_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl or .jsonl.gz file; empty lines are skipped."""
    with open_text(path, "r") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); one object a line is expected") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: {type(row).__name__} instead of an object with gold and completion")
            yield row


def open_text(path: str | Path, mode: str) -> TextIO:
    """A text file, compressed where its name ends in .gz. Lone surrogates survive."""
    opener = gzip.open if str(path).endswith(".gz") else open
    return opener(path, mode + "t", encoding="utf-8", errors="surrogatepass")  # type: ignore[return-value]


def _field(row: dict[str, Any], name: str, source: str | Path, number: int) -> str:
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # golds of AMC23 are numbers: 27.0
    if not isinstance(value, str):
        raise UserError(f'{source}:{number}: no text in "{name}"; rows look like {{"id", "gold", "completion"}}')
    return value


def _write(sink: TextIO, identity: Any, pending: Pending, totals: Totals) -> None:
    verdict = pending.result()
    row = {
        "id": identity,
        "correct": verdict.correct,
        "extracted": verdict.extracted,
        "reason": verdict.reason,
        "ms": round(pending.seconds * 1000, 3),
    }
    sink.write(json.dumps(row) + "\n")
    totals.rows += 1
    totals.outcomes[_OUTCOMES[verdict.correct]] += 1
    totals.reasons[verdict.reason] += 1


@contextmanager
def _progress(wanted: bool, source: str | Path) -> Iterator[Callable[[], object]]:
    """A function to call after each row; it draws a bar on a terminal and nothing elsewhere."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(f"grading {Path(source).name}", total=sum(1 for _ in read_rows(source)))
        yield lambda: bar.advance(task)


_OUTCOMES = {True: "right", False: "wrong", None: "unscorable"}
