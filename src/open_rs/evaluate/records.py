"""One evaluation on disk: completions and verdicts appended as they arrive, read again after a kill, never doubled.

While it runs, `completions.jsonl` takes what is generated and `verdicts.jsonl` what the grader says of it, keyed by
(problem, sample). When it is done, the first file holds both, in the order of the problems, and the second is gone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from open_rs.run_dir import disk_errors, read_whole_lines, replace_file
from open_rs.types import Finish, UserError

COMPLETIONS = "completions.jsonl"
VERDICTS = "verdicts.jsonl"
SECONDS_BETWEEN_SYNCS = 2.0
Key = tuple[str, int]  # problem id, sample number


@dataclass(frozen=True, slots=True)
class Completion:
    """What one request gave, and the problem it answers. `tokens` counts the stop token, or is None where unknown."""

    benchmark: str
    problem_id: str
    sample: int
    question: str
    gold: str
    text: str
    finish: Finish | None
    tokens: int | None
    reasoning_open: bool

    @property
    def key(self) -> Key:
        return self.problem_id, self.sample


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was made of one completion: the grader's verdict and the signs in the text."""

    problem_id: str
    sample: int
    correct: bool | None
    extracted: str | None
    reason: str
    looping: bool
    foreign: bool
    answer_only_in_reasoning: bool
    outside_box: bool = False  # absent in files of the first version

    @property
    def key(self) -> Key:
        return self.problem_id, self.sample


class Log:
    """An append-only JSONL file that survives being killed: a half-written last line is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(path)
            self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
        self._path, self._synced = path, time.monotonic()

    def append(self, row: Mapping[str, Any]) -> None:
        """Hand one row to the operating system, and now and then all of them to the disk."""
        with disk_errors(self._path):
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()
            if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with disk_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class Store:
    """The completions and verdicts of one evaluation, in memory and, where a directory is given, on disk."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.completions: dict[Key, Completion] = {}
        self.judgements: dict[Key, Judgement] = {}
        self._logs: dict[str, Log] = {}
        if directory is not None:
            self._read(directory)
            self._open_logs(directory)

    def add_completion(self, completion: Completion) -> None:
        if self._keep(self.completions, completion) and self._logs:
            self._logs[COMPLETIONS].append(asdict(completion))

    def add_judgement(self, judgement: Judgement) -> None:
        if self._keep(self.judgements, judgement) and self._logs:
            self._logs[VERDICTS].append(asdict(judgement))

    def forget_judgements(self) -> None:
        """Forget every verdict, in memory and on disk, so that everything is graded again."""
        self.judgements.clear()
        self._rewrite(self.completions)

    def settle(self, order: Mapping[str, int]) -> None:
        """Write one file with everything, by the problems' `order` and the sample, so that no kill leaves a trace."""
        last = len(order)
        self._rewrite(sorted(self.completions, key=lambda key: (order.get(key[0], last), key)))

    def _rewrite(self, keys: Iterable[Key]) -> None:
        if self.directory is None:
            return
        self.__exit__()
        lines = (json.dumps(graded_row(self.completions[k], self.judgements.get(k)), ensure_ascii=False) for k in keys)
        content = "".join(f"{line}\n" for line in lines)
        replace_file(self.directory / COMPLETIONS, content.encode("utf-8", "backslashreplace"))
        (self.directory / VERDICTS).unlink(missing_ok=True)
        self._open_logs(self.directory)

    def _read(self, directory: Path) -> None:
        for row in read_whole_lines(directory / COMPLETIONS):
            self._keep(self.completions, _parse(Completion, row, directory / COMPLETIONS))
            if "correct" in row:
                self._keep(self.judgements, _parse(Judgement, row, directory / COMPLETIONS))
        for row in read_whole_lines(directory / VERDICTS):
            self._keep(self.judgements, _parse(Judgement, row, directory / VERDICTS))

    def _open_logs(self, directory: Path) -> None:
        self._logs = {name: Log(directory / name) for name in (COMPLETIONS, VERDICTS)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for log in self._logs.values():
            log.__exit__()
        self._logs = {}
        verdicts = None if self.directory is None else self.directory / VERDICTS
        if verdicts is not None and verdicts.exists() and verdicts.stat().st_size == 0:
            verdicts.unlink()

    @staticmethod
    def _keep(rows: dict[Key, Any], row: Any) -> bool:
        return rows.setdefault(row.key, row) is row


def graded_row(completion: Completion, judgement: Judgement | None) -> dict[str, Any]:
    """One row with the completion and, where there is one, its verdict."""
    return asdict(completion) if judgement is None else {**asdict(completion), **asdict(judgement)}


def _parse(kind: type, row: Mapping[str, Any], path: Path) -> Any:
    names = [field.name for field in fields(kind) if field.name in row or field.default is MISSING]
    missing = [name for name in names if name not in row]
    if missing:
        raise UserError(
            f"{path}: a row has no `{missing[0]}`; another version wrote it, or it was edited: choose another --out"
        )
    return kind(**{name: row[name] for name in names})


def _cut_half_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        keep, window = size, 1 << 16
        while keep > 0:
            start = max(0, keep - window)
            file.seek(start)
            end = file.read(keep - start).rfind(b"\n")
            if end >= 0:
                keep = start + end + 1
                break
            keep = start
        if keep < size:
            file.truncate(keep)
