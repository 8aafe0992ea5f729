"""Where problems come from: one table of training sets and held-out benchmarks, and one way to read any of them.

Rows that can't be used (no question, no gold, empty answer) are data: dropped, counted and listed.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from open_rs.config.schema import DataConfig
from open_rs.data import arithmetic
from open_rs.grading.extract import trailing_boxes
from open_rs.types import Problem, UserError

AnswerRule = Literal["plain", "last_box", "after_hashes"]
QUESTION_FIELDS = ("problem", "question", "prompt", "query", "input")
ANSWER_FIELDS = ("answer", "expected_answer", "final_answer", "gold", "solution", "target", "output")
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as its authors published it. `files` are the names under which people keep local copies."""

    name: str
    hub_id: str | None
    split: str
    question_field: str
    answer_field: str
    held_out: bool
    answer_rule: AnswerRule = "plain"
    config: str | None = None
    revision: str = "main"
    num_rows: int | None = None
    files: tuple[str, ...] = ()
    relative_tolerance: float | None = None
    licence: str = "not stated"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that was left out, by id, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Problems ready for use and rows that were not."""

    problems: tuple[Problem, ...]
    dropped: tuple[Dropped, ...] = field(default_factory=tuple)


def load_problems(config: DataConfig) -> Loaded:
    """Training problems as a recipe asks for them, in file order, at most `limit`.

    Raises UserError when nothing is named, the file or column is missing, a benchmark is named, or no row remains.
    """
    if config.name == "arithmetic":
        return Loaded(tuple(arithmetic.generate(config.arithmetic, "train")))
    if config.path is not None:
        rows = read_rows(Path(config.path))
        questions, answers = _named(config.question_field, QUESTION_FIELDS), _named(config.answer_field, ANSWER_FIELDS)
        loaded = to_problems(rows, config.path, Path(config.path).name, questions, answers)
    elif config.name is not None:
        source = SOURCES.get(config.name) or _by_hub_id(config.name)
        if source is not None and source.held_out:
            raise UserError(f"data.name: `{config.name}` is a benchmark and held out; train on something else")
        loaded = _load_hub(config, source)
    else:
        raise UserError("data: names no problems; set data.name (see `open-rs sources`) or data.path")
    if not loaded.problems:
        first = f"; the first: {loaded.dropped[0].reason}" if loaded.dropped else ""
        where = config.path or config.name
        raise UserError(
            f"{where}: no usable problem among {len(loaded.dropped)} rows{first}; mend the file or the columns"
        )
    return loaded if config.limit is None else Loaded(loaded.problems[: config.limit], loaded.dropped)


def load_benchmark(name: str, data_directory: Path | None = None, limit: int | None = None) -> Loaded:
    """A benchmark from a local copy under one of its usual names, or from the Hub at its pinned revision."""
    source = find_source(name)
    if data_directory is None:
        config = DataConfig(name=name)
        loaded = _load_hub(config, source)
    else:
        rows = read_rows(_local_copy(source, data_directory))
        questions, answers = (source.question_field, *QUESTION_FIELDS), (source.answer_field, *ANSWER_FIELDS)
        loaded = to_problems(rows, name, name, questions, answers, source.answer_rule)
    return loaded if limit is None else Loaded(loaded.problems[:limit], loaded.dropped)


def find_source(name: str) -> Source:
    """The table's row of that name; an unknown name is a UserError that shows the nearest known one."""
    if name in SOURCES:
        return SOURCES[name]
    near = get_close_matches(name, SOURCES, n=1, cutoff=0.4)
    hint = f"; did you mean `{near[0]}`" if near else ""
    raise UserError(f"{name}: no such data set{hint}? Known: {', '.join(sorted(SOURCES))}")


def benchmarks() -> tuple[Source, ...]:
    """Every source that is held out."""
    return tuple(source for source in SOURCES.values() if source.held_out)


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
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        if name.endswith(".json"):
            yield from _parse_json(file.read(), path)
        elif name.endswith(".csv"):
            yield from csv.DictReader(line.decode("utf-8", "replace") for line in file)
        else:
            yield from _parse_lines(file, path)


def to_problems(
    rows: Iterable[Mapping[str, Any]],
    where: str,
    source: str,
    question_fields: Sequence[str] = QUESTION_FIELDS,
    answer_fields: Sequence[str] = ANSWER_FIELDS,
    answer_rule: AnswerRule = "plain",
) -> Loaded:
    """Turn rows into problems; the first row decides which of the named fields, in their order, are read.

    An id that stands in several rows (the AMC set's does) is told apart by the row's number.
    """
    problems: list[Problem] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    question_field = answer_field = ""
    for index, row in enumerate(rows):
        if index == 0:
            question_field = _choose_field(row, question_fields, "question", where)
            answer_field = _choose_field(row, answer_fields, "answer", where)
        identifier = str(
            next((row[key] for key in ("id", "unique_id", "index", "idx") if row.get(key) is not None), index)
        )
        question = _as_text(row.get(question_field))
        answer = ANSWER_RULES[answer_rule](_as_text(row.get(answer_field)))
        name = f"{source}:{identifier}" if identifier not in seen else f"{source}:{identifier}#{index + 1}"
        seen.add(identifier)
        reason = _why_unusable(question, answer, question_field, answer_field)
        if reason is not None:
            dropped.append(Dropped(name, f"row {index + 1}: {reason}"))
            continue
        meta = {key: value for key, value in row.items() if key not in (question_field, answer_field)}
        problems.append(Problem(name, question, answer, source, meta))
    return Loaded(tuple(problems), tuple(dropped))


def last_box(text: str) -> str:
    """The content of the last balanced `\\boxed{}` or `\\fbox{}`, or "" where there is none."""
    boxes = trailing_boxes(text)
    return boxes[-1] if boxes else ""


def _why_unusable(question: str, answer: str, question_field: str, answer_field: str) -> str | None:
    if not question.strip():
        return f"no question in `{question_field}`"
    return None if answer.strip() else f"no answer in `{answer_field}`"


def _as_text(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _named(field_name: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if field_name is None else (field_name,)


def _choose_field(row: Mapping[str, Any], wanted: Sequence[str], what: str, where: str) -> str:
    found = next((name for name in wanted if name in row), None)
    if found is not None:
        return found
    columns = ", ".join(f"`{name}`" for name in row)
    near = get_close_matches(wanted[0], list(row), n=1)
    hint = f" (nearest: `{near[0]}`)" if near else ""
    names = " or ".join(f"`{name}`" for name in wanted)
    raise UserError(f"{where}: no column {names}{hint}; it has {columns}; set data.{what}_field to one of them")


def _local_copy(source: Source, directory: Path) -> Path:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; --data names the folder that holds the benchmark files")
    for stem in (source.name, *source.files):
        for suffix in SUFFIXES:
            if (directory / f"{stem}{suffix}").is_file():
                return directory / f"{stem}{suffix}"
    tried = ", ".join(f"{stem}.jsonl" for stem in (source.name, *source.files))
    raise UserError(f"{directory}: no copy of `{source.name}` in it; expected one of {tried} (or .json, .parquet, .gz)")


def _data_file_in(directory: Path) -> Path:
    for name in ("train.jsonl", "train.jsonl.gz", "train.parquet", "data/train.parquet"):
        if (directory / name).is_file():
            return directory / name
    raise UserError(f"{directory}: no train.jsonl or train.parquet in it; give the data file itself")


def _parse_json(raw: bytes, path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); for one object a line, name the file .jsonl") from error
    rows = (
        value if isinstance(value, list) else next((part for part in value.values() if isinstance(part, list)), [value])
    )
    yield from rows


def _parse_lines(lines: Iterable[bytes], path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}); mend or delete the line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a row must be an object with named fields, this is {line[:40]!r}")
        yield row


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _by_hub_id(name: str) -> Source | None:
    return next((source for source in SOURCES.values() if source.hub_id == name), None)


def _load_hub(config: DataConfig, source: Source | None) -> Loaded:
    import datasets
    import datasets.exceptions

    assert config.name is not None
    hub_id = config.name if source is None else source.hub_id
    if hub_id is None:
        raise UserError(f"{config.name}: has no copy on the Hub; give a local copy with --data or data.path")
    try:
        rows = datasets.load_dataset(
            hub_id,
            config.config or (source.config if source else None),
            split=source.split if source else config.split,
            revision=config.revision or (source.revision if source else None),
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"data.name: can't load `{hub_id}` from the Hub ({first_line}); "
            "check the id and the network, or set data.path"
        ) from error
    questions = _named(config.question_field or (source.question_field if source else None), QUESTION_FIELDS)
    answers = _named(config.answer_field or (source.answer_field if source else None), ANSWER_FIELDS)
    rule = source.answer_rule if source else "plain"
    return to_problems(rows, hub_id, config.name, questions, answers, rule)  # pyright: ignore[reportArgumentType]


ANSWER_RULES = {
    "plain": lambda text: last_box(text) or text if "\\boxed" in text else text,
    "last_box": last_box,
    "after_hashes": lambda text: text.rpartition("####")[2].strip().replace(",", "") if "####" in text else "",
}

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("arithmetic", None, "train", "question", "answer", held_out=False, licence="MIT"),
        Source("open-rs", "knoveleng/open-rs", "train", "problem", "answer", held_out=False, num_rows=7_000),
        Source("open-s1", "knoveleng/open-s1", "train", "problem", "answer", held_out=False, num_rows=18_615),
        Source(
            "open-deepscaler",
            "knoveleng/open-deepscaler",
            "train",
            "problem",
            "answer",
            held_out=False,
            num_rows=21_044,
        ),
        Source(
            "deepscaler",
            "agentica-org/DeepScaleR-Preview-Dataset",
            "train",
            "problem",
            "answer",
            held_out=False,
            num_rows=40_315,
            files=("deepscaler_40k",),
            licence="MIT",
        ),
        Source(
            "s1",
            "simplescaling/data_ablation_full59K",
            "train",
            "question",
            "solution",
            held_out=False,
            num_rows=59_029,
        ),
        Source(
            "aime24",
            "HuggingFaceH4/aime_2024",
            "train",
            "problem",
            "answer",
            held_out=True,
            num_rows=30,
            files=("aime_2024",),
        ),
        Source(
            "math_500",
            "HuggingFaceH4/MATH-500",
            "test",
            "problem",
            "answer",
            held_out=True,
            num_rows=500,
            files=("math500", "MATH-500"),
        ),
        Source(
            "amc23", "knoveleng/AMC-23", "train", "problem", "answer", held_out=True, num_rows=40, files=("AMC-23",)
        ),
        Source(
            "minerva",
            "knoveleng/Minerva-Math",
            "train",
            "problem",
            "solution",
            held_out=True,
            answer_rule="last_box",
            num_rows=272,
            files=("minerva_math", "Minerva-Math"),
        ),
        Source(
            "olympiadbench",
            "knoveleng/OlympiadBench",
            "train",
            "question",
            "final_answer",
            held_out=True,
            num_rows=675,
            files=("olympiadbench_oe_to_maths_en_comp", "OlympiadBench"),
        ),
        Source(
            "aime25",
            "math-ai/aime25",
            "test",
            "problem",
            "expected_answer",
            held_out=True,
            num_rows=30,
            files=("aime_2025",),
        ),
        Source(
            "amc22_23",
            "AI-MO/aimo-validation-amc",
            "train",
            "problem",
            "answer",
            held_out=True,
            num_rows=83,
            files=("amc22_23_83", "aimo-validation-amc"),
        ),
        Source(
            "gsm8k",
            "openai/gsm8k",
            "test",
            "question",
            "answer",
            held_out=True,
            answer_rule="after_hashes",
            config="main",
            num_rows=1_319,
            files=("gsm8k_test",),
            licence="MIT",
        ),
    )
}
