"""Sources read every shape of file that people keep, and drop what can't be used, saying why."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from open_rs.config.schema import DataConfig
from open_rs.data.sources import SOURCES, benchmarks, last_box, load_benchmark, load_problems, read_rows
from open_rs.types import UserError

ROWS = [{"problem": "1+1", "answer": "2"}, {"problem": "2+2", "answer": "4"}]


def write(path: Path, rows: list[dict]) -> Path:
    text = json.dumps(rows) if ".json" in path.suffixes and ".jsonl" not in path.suffixes else None
    text = text or "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        path.write_text("problem,answer\n" + "".join(f"{row['problem']},{row['answer']}\n" for row in rows))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"data{suffix}", ROWS)
    problems = load_problems(DataConfig(path=str(path))).problems
    assert [(p.question, p.answer) for p in problems] == [("1+1", "2"), ("2+2", "4")]


UNUSABLE = {
    "no question": ({"problem": "", "answer": "2"}, "no question"),
    "white question": ({"problem": "  \n", "answer": "2"}, "no question"),
    "no answer": ({"problem": "1+1", "answer": None}, "no answer"),
    "empty answer": ({"problem": "1+1", "answer": ""}, "no answer"),
    "missing answer": ({"problem": "1+1"}, "no answer"),
}


@pytest.mark.parametrize(("row", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_row_that_can_not_be_used_is_dropped_with_its_reason(tmp_path: Path, row: dict, reason: str) -> None:
    loaded = load_problems(DataConfig(path=str(write(tmp_path / "data.jsonl", [*ROWS, row]))))
    assert len(loaded.problems) == 2
    assert [(reason in dropped.reason, dropped.row) for dropped in loaded.dropped] == [(True, 3)]


def test_an_id_that_stands_twice_is_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [{"id": 1, **row} for row in ROWS])
    assert [p.id for p in load_problems(DataConfig(path=str(path))).problems] == ["data.jsonl:1", "data.jsonl:1~2"]


ANSWERS = {
    "a float that is an integer": (27.0, "27"),
    "a list of one": (["5"], "5"),
    "a whole solution": (r"So it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    "a number": (3, "3"),
}


@pytest.mark.parametrize(("written", "meant"), ANSWERS.values(), ids=ANSWERS.keys())
def test_golds_are_read_as_they_are_meant(tmp_path: Path, written: object, meant: str) -> None:
    path = write(tmp_path / "data.jsonl", [{"problem": "q", "answer": written}])
    assert load_problems(DataConfig(path=str(path))).problems[0].answer == meant


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2", "1"),
        ("", ""),
    ],
    ids=["last", "nested", "unbalanced last", "none"],
)
def test_the_last_balanced_box_counts(text: str, box: str) -> None:
    assert last_box(text) == box


def test_a_half_written_line_names_its_number(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(ROWS[0]) + '\n{"problem": "2+')
    with pytest.raises(UserError, match="line 2: not valid JSON"):
        list(read_rows(path))


def test_every_benchmark_is_held_out_from_training() -> None:
    for source in benchmarks():
        for name in {source.name, source.hub_id}:
            with pytest.raises(UserError, match="held out"):
                load_problems(DataConfig(name=name, split=source.split))


@pytest.mark.parametrize("source", [s for s in SOURCES.values() if s.held_out], ids=lambda s: s.name)
def test_local_copies_of_all_benchmarks_are_found_and_whole(shared_data: Path, source: object) -> None:
    loaded = load_benchmark(source.name, shared_data / "benchmarks")
    assert len(loaded.problems) == source.num_rows
    assert not loaded.dropped
