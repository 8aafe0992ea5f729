"""Rows of any file as problems: reading JSON, JSON lines, CSV and Parquet, choosing columns, taking the answer out.

Rows that can't be used (no question, no gold) are data: dropped, counted and listed. Bytes that are not UTF-8 are read
with a replacement mark, so that one bad row does not hide the others; the rule `encoding` finds them.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from open_rs.grading.extract import trailing_boxes
from open_rs.types import Problem, UserError

AnswerRule = Literal["plain", "last_box", "after_hashes"]
QUESTION_FIELDS = ("problem", "question", "prompt", "query", "input")
ANSWER_FIELDS = ("answer", "expected_answer", "final_answer", "gold", "solution", "target", "output")
ID_FIELDS = ("id", "unique_id", "index", "idx")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was left out, by id, with the reason. `row` counts from 1 in its file; 0 where there is no file."""

    id: str
    reason: str
    row: int = 0
    question: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Problems ready for use and rows that were not."""

    problems: tuple[Problem, ...]
    dropped: tuple[Dropped, ...] = field(default_factory=tuple)


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Stream the rows of a .json, .jsonl, .csv (each also as .gz) or .parquet file, or of a curated directory."""
    if path.is_dir():
        path = _data_file_in(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .json, .jsonl, .jsonl.gz, .csv or .parquet file")
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _read_parquet(path)
        return
    parse = _parse_json if name.endswith(".json") else _parse_csv if name.endswith(".csv") else _parse_lines
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from parse(file, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the compressed file is damaged or cut short ({error}); fetch it again") from error


def to_problems(
    rows: Iterable[Mapping[str, Any]],
    where: str,
    source: str,
    question_fields: Sequence[str] = QUESTION_FIELDS,
    answer_fields: Sequence[str] = ANSWER_FIELDS,
    answer_rule: AnswerRule = "plain",
) -> Loaded:
    """Turn rows into problems; the first row decides which of the named fields, in their order, are read."""
    found = list(iterate_problems(rows, where, source, question_fields, answer_fields, answer_rule))
    return Loaded(
        tuple(one for one in found if isinstance(one, Problem)),
        tuple(one for one in found if isinstance(one, Dropped)),
    )


def iterate_problems(
    rows: Iterable[Mapping[str, Any]],
    where: str,
    source: str,
    question_fields: Sequence[str] = QUESTION_FIELDS,
    answer_fields: Sequence[str] = ANSWER_FIELDS,
    answer_rule: AnswerRule = "plain",
) -> Iterator[Problem | Dropped]:
    """As `to_problems`, one row at a time.

    An id that stands twice gets a number behind it (`7`, `7~2`): several benchmarks restart their ids half-way. Where
    the answer is taken out of a longer text, `meta["solution"]` keeps the text.
    """
    seen: dict[str, int] = {}
    question_field = answer_field = ""
    for index, row in enumerate(rows):
        if index == 0:
            question_field = _choose_field(row, question_fields, "question", where)
            answer_field = _choose_field(row, answer_fields, "answer", where)
        identifier = _identify(row, index, seen)
        question, stated = as_text(row.get(question_field)), as_text(row.get(answer_field))
        answer = ANSWER_RULES[answer_rule](stated)
        reason = _why_unusable(question, answer, question_field, answer_field)
        if reason is not None:
            yield Dropped(f"{source}:{identifier}", reason, index + 1, question)
            continue
        meta = {key: value for key, value in row.items() if key not in (question_field, answer_field)}
        if answer != stated:
            meta.setdefault("solution", stated)
        yield Problem(f"{source}:{identifier}", question, answer, source, meta)


def last_box(text: str) -> str:
    """The content of the last balanced `\\boxed{}` or `\\fbox{}`, or "" where there is none."""
    boxes = trailing_boxes(text)
    return boxes[-1] if boxes else ""


def _identify(row: Mapping[str, Any], index: int, seen: dict[str, int]) -> str:
    identifier = str(next((row[key] for key in ID_FIELDS if row.get(key) is not None), index))
    while identifier in seen:
        seen[identifier] += 1
        identifier = f"{identifier}~{seen[identifier]}"
    seen[identifier] = 1
    return identifier


def _why_unusable(question: str, answer: str, question_field: str, answer_field: str) -> str | None:
    if not question.strip():
        return f"no question in `{question_field}`"
    return f"no answer in `{answer_field}`" if not answer.strip() else None


def as_text(value: Any) -> str:
    """A cell as text: a list of one is its entry, `27.0` is `27`, nothing is the empty string."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _choose_field(row: Mapping[str, Any], wanted: Sequence[str], what: str, where: str) -> str:
    found = next((name for name in wanted if name in row), None)
    if found is not None:
        return found
    columns = ", ".join(f"`{name}`" for name in row)
    near = get_close_matches(wanted[0], list(row), n=1)
    hint = f" (nearest: `{near[0]}`)" if near else ""
    names = " or ".join(f"`{name}`" for name in wanted)
    raise UserError(f"{where}: no column {names}{hint}; it has {columns}; set data.{what}_field to one of them")


def _data_file_in(directory: Path) -> Path:
    for name in ("train.jsonl", "train.jsonl.gz", "train.parquet", "data/train.parquet", "data/train.jsonl"):
        if (directory / name).is_file():
            return directory / name
    raise UserError(f"{directory}: no train.jsonl or train.parquet in it; give the data file itself")


def _parse_csv(lines: Iterable[bytes], path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(1 << 30)
    try:
        yield from csv.DictReader(line.decode("utf-8-sig", "replace") for line in lines)
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}); mend the line or give .jsonl") from error


def _parse_json(lines: Iterable[bytes], path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        value = json.loads(b"".join(lines).decode("utf-8-sig", "replace"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); for one object a line, name the file .jsonl") from error
    rows = (
        value if isinstance(value, list) else next((part for part in value.values() if isinstance(part, list)), [value])
    )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, entry {number}: a row must be an object with named fields, this is {str(row)[:40]!r}"
            )
        yield row


def _parse_lines(lines: Iterable[bytes], path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig", "replace"))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}); mend or delete the line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a row must be an object with named fields, this is {line[:40]!r}")
        yield row


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet ({error}); fetch it again") from error


ANSWER_RULES = {
    "plain": lambda text: last_box(text) or text if "\\boxed" in text else text,
    "last_box": last_box,
    "after_hashes": lambda text: text.rpartition("####")[2].strip().replace(",", "") if "####" in text else "",
}
