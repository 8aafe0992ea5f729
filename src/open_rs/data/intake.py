"""Opening one source of a curation: which file or Hub set it is, what it holds now, and its rows as problems."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from open_rs.config.curation import SourceConfig
from open_rs.config.schema import ArithmeticConfig, DataConfig
from open_rs.data import arithmetic
from open_rs.data.rows import ANSWER_FIELDS, QUESTION_FIELDS, AnswerRule, Dropped, iterate_problems, read_rows
from open_rs.data.sources import SOURCES, Source, benchmarks, find_source, load_benchmark, local_copy, open_hub_set
from open_rs.types import Problem, UserError

FIRST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Intake:
    """A source that is open: `place` for people, `digest` of its content for the cache, and its rows."""

    name: str
    place: str
    digest: str
    licence: str
    rows: Iterable[Problem | Dropped]


def open_source(source: SourceConfig, directories: Sequence[Path]) -> Intake:
    """Find the source among local copies, then on the Hub. Raises UserError for a benchmark, whatever its name."""
    if source.name == "arithmetic":
        return _open_arithmetic(source)
    known = None
    if source.name is not None:
        known = next((one for one in SOURCES.values() if source.name in (one.name, one.hub_id)), None)
        if known is None and "/" not in source.name:
            known = find_source(source.name)
    _refuse_benchmark(source, known)
    path = Path(source.path) if source.path is not None else _copy_among(known, directories)
    if path is not None:
        digest = file_digest(path)
        return _intake(source, known, str(path), digest, read_rows(path))
    assert source.name is not None
    wanted = DataConfig(name=source.name, revision=source.revision, config=source.config, split=source.split)
    rows, digest = open_hub_set(wanted, known)
    return _intake(source, known, source.name, digest, rows)


def open_benchmarks(names: Sequence[str] | str, directories: Sequence[Path]) -> list[Problem]:
    """The problems of the held-out sets. Raises UserError for one that is neither in a directory nor on the Hub."""
    wanted = [source.name for source in benchmarks()] if names == "all" else list(names)
    found: list[Problem] = []
    for name in wanted:
        source = find_source(name)
        if not source.held_out:
            raise UserError(f"benchmarks: `{name}` is a training set; name benchmarks of `open-rs sources`")
        directory = next((place for place in directories if local_copy(source, place) is not None), None)
        try:
            found.extend(load_benchmark(name, directory).problems)
        except UserError as error:
            raise UserError(
                f"{error}\nbenchmarks: the result is checked against `{name}`; name a folder that holds it with "
                "--data, or leave it out with `benchmarks: [...]`"
            ) from error
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of the data files of a directory."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if not file.is_file():
            raise UserError(f"{path}: no such file; give a .json, .jsonl, .jsonl.gz, .csv or .parquet file")
        with file.open("rb") as opened:
            for block in iter(lambda: opened.read(FIRST_BYTES), b""):
                digest.update(block)
    return digest.hexdigest()


def _intake(
    source: SourceConfig, known: Source | None, place: str, digest: str, rows: Iterable[Mapping[str, Any]]
) -> Intake:
    name = source.label or source.name or Path(place).name.split(".")[0]
    questions = _fields(source.question_field, known.question_field if known else None, QUESTION_FIELDS)
    answers = _fields(source.answer_field, known.answer_field if known else None, ANSWER_FIELDS)
    rule: AnswerRule = source.answer_rule or (known.answer_rule if known else "plain")
    problems = iterate_problems(_renamed(rows, source, place), place, name, questions, answers, rule)
    return Intake(name, place, digest, known.licence if known else "not stated", _limited(problems, source))


def _fields(asked: str | None, usual: str | None, all_usual: Sequence[str]) -> Sequence[str]:
    return (asked,) if asked is not None else all_usual if usual is None else (usual, *all_usual)


def _renamed(rows: Iterable[Mapping[str, Any]], source: SourceConfig, place: str) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows):
        missing = [theirs for theirs in source.columns.values() if theirs not in row]
        if missing and number == 0:
            raise UserError(
                f"{place}: no column {', '.join(missing)}, which `columns` names; it has {', '.join(map(str, row))}"
            )
        yield {**row, **{ours: row.get(theirs) for ours, theirs in source.columns.items()}}


def _limited(rows: Iterable[Problem | Dropped], source: SourceConfig) -> Iterator[Problem | Dropped]:
    kept = 0
    for row in rows:
        if kept == source.limit:
            return
        if isinstance(row, Problem) and len(row.question) + len(row.answer) > source.max_chars:
            yield Dropped(row.id, f"over {source.max_chars:,} characters", 0, row.question[:500])
            continue
        kept += isinstance(row, Problem)
        yield row


def _open_arithmetic(source: SourceConfig) -> Intake:
    settings = ArithmeticConfig(num_problems=source.limit or ArithmeticConfig().num_problems)
    name = source.label or "arithmetic"
    problems = [replace(problem, source=name) for problem in arithmetic.generate(settings, "train")]
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()
    return Intake(name, "generated", digest, "MIT", problems)


def _copy_among(known: Source | None, directories: Sequence[Path]) -> Path | None:
    if known is None:
        return None
    return next((found for place in directories if (found := local_copy(known, place)) is not None), None)


def _refuse_benchmark(source: SourceConfig, known: Source | None) -> None:
    stem = Path(source.path).name.split(".")[0] if source.path is not None else None
    held_out = next((one for one in benchmarks() if known == one or stem in (one.name, *one.files)), None)
    if held_out is not None:
        named = source.name or source.path
        raise UserError(f"sources: `{named}` is the benchmark {held_out.name} and held out; train on something else")
