"""A run directory loses nothing: whole files or none, logs read up to their last whole line, no run over another."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from open_rs.run_dir import RunDir, disk_errors, next_free
from open_rs.types import UserError


def test_a_new_run_holds_its_recipe_and_environment(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", "name: x\n")
    assert (run.path / "recipe.yaml").read_text() == "name: x\n"
    assert run.read_json("environment.json")["packages"]["torch"]


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(UserError, match="already holds files"):
        RunDir.create(tmp_path, "name: x\n")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_rows_come_back_as_they_were_also_with_lone_surrogates_and_nul(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path)
    rows = [{"text": "a\x00b"}, {"text": "\ud800 half a pair"}, {"text": "π ≤ 4"}]
    run.write_rows(name, rows)
    back = list(run.read_rows(name))
    assert [back[0], back[2]] == [rows[0], rows[2]]
    assert len(back) == 3


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append("log.jsonl", {"step": 1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2')
    assert list(run.read_rows("log.jsonl")) == [{"step": 1}]
    run.keep_rows("log.jsonl", lambda row: row["step"] < 1)
    assert list(run.read_rows("log.jsonl")) == []


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2"):
        list(RunDir(tmp_path).read_rows("log.jsonl"))


def test_next_free_counts_up(tmp_path: Path) -> None:
    assert next_free(tmp_path / "demo") == tmp_path / "demo"
    for name in ("demo", "demo-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    assert next_free(tmp_path / "demo") == tmp_path / "demo-3"


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission")], ids=["full", "forbidden"]
)
def test_a_disk_that_refuses_is_one_sentence(code: int, words: str) -> None:
    with pytest.raises(UserError, match=words), disk_errors(Path("somewhere")):
        raise OSError(code, "refused")


def test_a_really_full_disk_is_one_sentence() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(UserError, match="disk is full"), disk_errors(full), full.open("w") as file:
        file.write("x" * 100_000)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path)
    run.write_text("summary.json", "old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(UserError, match="disk is full"):
        run.write_text("summary.json", "new")
    assert (tmp_path / "summary.json").read_text() == "old"
