"""One evaluation on disk: completions and verdicts appended as they arrive, read again after a kill, never doubled.

`completions.jsonl` holds what was generated, `verdicts.jsonl` what the grader said of it; grading again rewrites the
second alone. Both are keyed by (problem, sample).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from open_rs.run_dir import disk_errors
from open_rs.types import Finish, UserError

COMPLETIONS = "completions.jsonl"
VERDICTS = "verdicts.jsonl"
SECONDS_BETWEEN_SYNCS = 2.0
Key = tuple[str, int]  # problem id, sample number


@dataclass(frozen=True, slots=True)
class Completion:
    """What one request gave. `tokens` counts the stop token; None where an engine or a file does not say."""

    benchmark: str
    problem_id: str
    sample: int
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
    """The two logs of one evaluation, or memory alone where no directory is given. The first row of a key counts."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.completions: dict[Key, Completion] = {}
        self.judgements: dict[Key, Judgement] = {}
        self._logs: dict[str, Log] = {}
        if directory is not None:
            for row in read_whole_lines(directory / COMPLETIONS):
                self._keep(self.completions, _parse(Completion, row, directory / COMPLETIONS))
            for row in read_whole_lines(directory / VERDICTS):
                self._keep(self.judgements, _parse(Judgement, row, directory / VERDICTS))
            self._logs = {name: Log(directory / name) for name in (COMPLETIONS, VERDICTS)}

    def add_completion(self, completion: Completion) -> None:
        if self._keep(self.completions, completion) and self._logs:
            self._logs[COMPLETIONS].append(asdict(completion))

    def add_judgement(self, judgement: Judgement) -> None:
        if self._keep(self.judgements, judgement) and self._logs:
            self._logs[VERDICTS].append(asdict(judgement))

    def forget_judgements(self) -> None:
        """Grade everything again: the old verdicts are set aside as `verdicts.jsonl.old`."""
        self.judgements.clear()
        if self.directory is not None:
            self._logs[VERDICTS].__exit__()
            (self.directory / VERDICTS).replace(self.directory / f"{VERDICTS}.old")
            self._logs[VERDICTS] = Log(self.directory / VERDICTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for log in self._logs.values():
            log.__exit__()

    @staticmethod
    def _keep(rows: dict[Key, Any], row: Any) -> bool:
        return rows.setdefault(row.key, row) is row


def read_whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL log; a last line without its end is not yet a row."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {number}: not valid JSON ({error}); delete the line and start again"
                ) from error


def _parse(kind: type, row: Mapping[str, Any], path: Path) -> Any:
    try:
        return kind(**row)
    except TypeError as error:
        raise UserError(
            f"{path}: a row has other columns ({error}); another version wrote it, choose another --out"
        ) from error


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
