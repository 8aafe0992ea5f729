"""`open-rs grade` and `open-rs audit` as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from open_rs.cli.audit import command as audit
from open_rs.cli.grade import command as grade
from open_rs.types import UserError


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_grade_writes_verdicts_and_prints_totals(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        {"id": 1, "gold": "1/2", "completion": "\\boxed{0.5}"},
        {"id": 2, "gold": "1/2", "completion": "\\boxed{2}"},
        {"id": 3, "gold": "", "completion": "\\boxed{2}"},
    )
    done = CliRunner().invoke(grade, [str(source), "--out", str(tmp_path / "out.jsonl")])
    assert done.exit_code == 0
    assert "3 rows: 1 right, 1 wrong, 1 unscorable" in done.output
    assert "rows/s" in done.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [set(row) for row in rows] == [{"id", "correct", "extracted", "reason", "ms"}] * 3
    assert [row["correct"] for row in rows] == [True, False, None]


def test_grade_prints_json_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"gold": "5", "completion": "the answer is 5"})
    done = CliRunner().invoke(grade, [str(source), "--out", str(tmp_path / "out"), "--json", "--fallback"])
    assert json.loads(done.output)["outcomes"] == {"right": 1}


def test_grade_names_the_bad_line(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"gold": "5"})
    done = CliRunner().invoke(grade, [str(source), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, UserError)
    assert ":1:" in str(done.exception)


def test_audit_lists_golds_that_fail_and_golds_that_look_ambiguous(tmp_path: Path) -> None:
    data = write(
        tmp_path / "questions.jsonl",
        {"id": "good", "question": "a", "answer": "\\frac{1}{2}"},
        {"id": "broken", "question": "b", "answer": "\\frac{1}{"},
        {"id": "twofold", "question": "c", "answer": "1,234"},
        {"id": "empty", "question": "d", "answer": ""},
    )
    done = CliRunner().invoke(audit, [str(data)])
    assert done.exit_code == 0
    assert "2/4 golds grade themselves" in done.output
    found = json.loads(CliRunner().invoke(audit, [str(data), "--json"]).output)
    assert [row["id"].split(":")[1] for row in found["failed"]] == ["empty", "broken"]
    assert [row["id"].split(":")[1] for row in found["ambiguous"]] == ["twofold"]


@pytest.mark.parametrize(
    ("name", "field", "num_golds"),
    [
        ("aime24", None, 30),
        ("amc23", None, 40),
        ("math500", "answer", 500),
        ("math500", "solution", 500),
        ("minerva_math", None, 272),
        ("olympiadbench_oe_to_maths_en_comp", None, 675),
    ],
)
def test_benchmark_golds_grade_themselves(shared_data: Path, name: str, field: str | None, num_golds: int) -> None:
    options = ["--gold-field", field] if field else []
    done = CliRunner().invoke(audit, [str(shared_data / f"benchmarks/{name}.jsonl"), "--json", *options])
    found = json.loads(done.output)
    assert found["num_golds"] == num_golds
    assert found["failed"] == []
