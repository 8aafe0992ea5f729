"""Where problems come from: one table of training sets and held-out benchmarks, and one way to read any of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from open_rs.config.schema import DataConfig
from open_rs.data import arithmetic
from open_rs.data.rows import (
    ANSWER_FIELDS,
    QUESTION_FIELDS,
    AnswerRule,
    Dropped,
    Loaded,
    iterate_problems,
    last_box,
    read_rows,
    to_problems,
)
from open_rs.types import UserError

__all__ = [
    "ANSWER_FIELDS",
    "QUESTION_FIELDS",
    "SOURCES",
    "AnswerRule",
    "Dropped",
    "Loaded",
    "Source",
    "benchmarks",
    "find_source",
    "iterate_problems",
    "last_box",
    "load_benchmark",
    "load_problems",
    "local_copy",
    "open_hub_set",
    "read_rows",
    "to_problems",
]

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


def load_problems(config: DataConfig) -> Loaded:
    """Training problems as a recipe asks for them, in file order, at most `limit`.

    Raises UserError when nothing is named, the file or column is missing, a benchmark is named, no row remains, or the
    manifest of a curated set shows overlap with a benchmark and `allow_contaminated` is not set.
    """
    if config.name == "arithmetic":
        return Loaded(tuple(arithmetic.generate(config.arithmetic, "train")))
    if config.path is not None:
        _refuse_contaminated(config)
        rows = read_rows(Path(config.path))
        questions, answers = _named(config.question_field, QUESTION_FIELDS), _named(config.answer_field, ANSWER_FIELDS)
        loaded = to_problems(rows, config.path, Path(config.path).name, questions, answers)
    elif config.name is not None:
        source = SOURCES.get(config.name) or _by_hub_id(config.name, config.split)
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


def local_copy(source: Source, directory: Path) -> Path | None:
    """The file in `directory` that holds a copy of `source` under one of its usual names, or None."""
    names = (f"{stem}{suffix}" for stem in (source.name, *source.files) for suffix in SUFFIXES)
    return next((directory / name for name in names if (directory / name).is_file()), None)


def _refuse_contaminated(config: DataConfig) -> None:
    assert config.path is not None
    place = Path(config.path)
    manifest = (place if place.is_dir() else place.parent) / "manifest.json"
    if config.allow_contaminated or not manifest.is_file():
        return
    try:
        overlaps = int(json.loads(manifest.read_text(encoding="utf-8")).get("overlap", {}).get("rows", 0))
    except (ValueError, AttributeError, OSError):
        return  # somebody else's manifest.json says nothing about overlap
    if overlaps:
        raise UserError(
            f"data.path: {overlaps} problems of {config.path} repeat a benchmark, says its manifest.json; "
            "curate it again with a `decontaminate` stage, or set data.allow_contaminated=true"
        )


def _named(field_name: str | None, usual: Sequence[str]) -> Sequence[str]:
    return usual if field_name is None else (field_name,)


def _local_copy(source: Source, directory: Path) -> Path:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; --data names the folder that holds the benchmark files")
    found = local_copy(source, directory)
    if found is None:
        tried = ", ".join(f"{stem}.jsonl" for stem in (source.name, *source.files))
        raise UserError(
            f"{directory}: no copy of `{source.name}` in it; expected one of {tried} (or .json, .parquet, .gz)"
        )
    return found


def _by_hub_id(name: str, split: str) -> Source | None:
    """The row of that Hub id and split: GSM8K's `train` is for training, its `test` is held out."""
    return next((source for source in SOURCES.values() if (source.hub_id, source.split) == (name, split)), None)


def open_hub_set(config: DataConfig, source: Source | None) -> tuple[Iterable[Mapping[str, Any]], str]:
    """The rows of a Hub set and a fingerprint of them. Raises UserError where it can't be had."""
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
    assert isinstance(rows, datasets.Dataset), "a split was named, so this is one table"
    return rows, rows._fingerprint  # pyright: ignore[reportReturnType]


def _load_hub(config: DataConfig, source: Source | None) -> Loaded:
    assert config.name is not None
    rows, _ = open_hub_set(config, source)
    questions = _named(config.question_field or (source.question_field if source else None), QUESTION_FIELDS)
    answers = _named(config.answer_field or (source.answer_field if source else None), ANSWER_FIELDS)
    place = config.name if source is None or source.hub_id is None else source.hub_id
    return to_problems(rows, place, config.name, questions, answers, source.answer_rule if source else "plain")


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
            "math_train",
            "DigitalLearningGmbH/MATH-lighteval",
            "train",
            "problem",
            "solution",
            held_out=False,
            num_rows=7_500,
            files=("math_train_7474",),
            licence="MIT",
        ),
        Source(
            "gsm8k_train",
            "openai/gsm8k",
            "train",
            "question",
            "answer",
            held_out=False,
            answer_rule="after_hashes",
            config="main",
            num_rows=7_473,
            licence="MIT",
        ),
        Source(
            "deepmath",
            "zwhe99/DeepMath-103K",
            "train",
            "question",
            "final_answer",
            held_out=False,
            num_rows=103_022,
            files=("deepmath_4994",),
            licence="MIT",
        ),
        Source("aime_1983_2023", None, "train", "problem", "answer", held_out=False, num_rows=975),
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
