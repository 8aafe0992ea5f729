"""The paper's numbers, lighteval's files and claims beside measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from open_rs.evaluate import published
from open_rs.evaluate.fingerprint import settings_of
from open_rs.evaluate.lighteval import read_lighteval
from open_rs.evaluate.protocols import PROTOCOLS, Protocol
from open_rs.evaluate.result import BenchmarkResult, Evaluation, Sample
from open_rs.types import UserError

# `correct` of lighteval's result files of the release, one sample a problem
PROBLEMS = {"aime24": 30, "math_500": 500, "amc23": 40, "minerva": 272, "olympiadbench": 675}
CORRECT = {"Open-RS1": (9, 419, 28, 79, 354), "Open-RS2": (9, 427, 32, 83, 354), "Open-RS3": (14, 422, 29, 73, 346)}


def write_lighteval(directory: Path, model: str, task: str, correct: int, problems: int, written: str) -> None:
    """One result file as lighteval writes it."""
    share = correct / problems
    stderr = (share * (1 - share) / (problems - 1)) ** 0.5
    value = {
        "config_general": {"model_name": f"knoveleng/{model}", "total_evaluation_time_secondes": "613.0"},
        "results": {
            f"custom|{task}|0": {"extractive_match": share, "extractive_match_stderr": stderr},
            "all": {"extractive_match": share, "extractive_match_stderr": stderr},
        },
        "versions": {f"custom|{task}|0": 1},
        "config_tasks": {f"custom|{task}": {"name": task, "hf_repo": "some/set", "original_num_docs": problems}},
    }
    place = directory / "logs" / "results" / "knoveleng" / model / f"results_{written}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(value))


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for model, counts in CORRECT.items():
        for correct, (task, problems) in zip(counts, PROBLEMS.items(), strict=True):
            write_lighteval(tmp_path, model, task, correct, problems, f"2025-03-15T00-00-00.{problems}")
    return tmp_path


def test_lightevals_files_rebuild_the_three_rows_of_table_1(release: Path) -> None:
    rows = {row.label.rpartition("/")[2]: row for row in read_lighteval(release)}
    for name, average in (("Open-RS1", 53.0), ("Open-RS2", 55.7), ("Open-RS3", 56.3)):
        in_paper = published.require(name)
        assert {b: round(100 * c.value, 1) for b, c in rows[name].cells.items()} == {
            b: pytest.approx(100 * c.value) for b, c in in_paper.cells.items()
        }
        assert rows[name].avg is not None
        assert round(100 * rows[name].avg.value, 1) == average
        assert all(cell.ci95 is not None and cell.value in cell.ci95 for cell in rows[name].cells.values())


def test_the_newest_file_of_a_task_counts(release: Path) -> None:
    write_lighteval(release, "Open-RS1", "aime24", 12, 30, "2025-04-01T00-00-00.000000")
    row = next(row for row in read_lighteval(release) if row.label.endswith("Open-RS1"))
    assert row.cells["aime24"].value == pytest.approx(0.4)


def test_the_number_of_problems_is_solved_from_the_standard_error_where_it_is_not_stated(tmp_path: Path) -> None:
    write_lighteval(tmp_path, "x", "exam", 13, 55, "2025-01-01T00-00-00.000000")
    file = next(tmp_path.rglob("results_*.json"))
    file.write_text(file.read_text().replace('"original_num_docs": 55', '"original_num_docs": -1'))
    assert read_lighteval(tmp_path)[0].cells["exam"].problems == 55


@pytest.mark.parametrize("text", ["{", "{}", '{"results": {}}'], ids=["half a file", "nothing", "no general part"])
def test_a_broken_lighteval_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "results_1.json").write_text(text)
    with pytest.raises(UserError, match=r"results_1\.json"):
        read_lighteval(tmp_path)


def test_table_1_has_twelve_rows_and_averages_as_printed() -> None:
    rows = published.table1()
    assert len(rows) == 12
    full = [row for row in rows if row.avg is not None and len(row.cells) == 5]
    for row in full:
        assert row.avg is not None
        assert sum(cell.value for cell in row.cells.values()) / 5 == pytest.approx(row.avg.value, abs=0.0006)


def test_the_best_of_21_checkpoints_is_what_a_constant_30_percent_gives() -> None:
    rows = published.checkpoints()
    swept = published.sweep(rows, "aime24")
    assert (len(rows), swept.num_checkpoints) == (21, 21)
    assert (round(100 * swept.mean, 1), round(100 * swept.spread, 1)) == (30.0, 6.7)
    assert round(100 * swept.expected_best, 1) == 46.3
    assert swept.spread < swept.binomial_spread
    assert "is what a constant 30 % would give" in str(swept)


@pytest.mark.parametrize("name", ["knoveleng/Open-RS3", "open-rs3", "Open_RS3", "Open-RS3 (50 steps)"])
def test_a_published_model_is_found_however_it_is_written(name: str) -> None:
    assert published.require(name).label == "Open-RS3 (50 steps)"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean `open-rs3`"):
        published.require("open-rs33")


@pytest.mark.parametrize(("right", "inside"), [(9, False), (14, True)], ids=["30 percent", "46.7 percent"])
def test_a_claim_is_held_against_our_interval(right: int, inside: bool) -> None:
    samples = tuple((Sample(i < right),) * 16 for i in range(30))
    result = BenchmarkResult("aime24", tuple(f"aime24:{i}" for i in range(30)), samples)
    claim = published.claims(Evaluation("knoveleng/Open-RS3", {"aime24": result}))[0]
    assert claim.claimed == pytest.approx(0.467)
    assert claim.inside or not inside


def minerva(**fields: Any) -> str:
    samples = tuple((Sample(False, outside_box=i < 27),) for i in range(272))
    fields = {"left_out": {}, "corrected_golds": {}, **fields}
    result = BenchmarkResult("minerva", tuple(f"minerva:{i}" for i in range(272)), samples, **fields)
    return str(published.claims(Evaluation("Open-RS3", {"minerva": result}))[0])


def test_a_claim_says_what_was_counted_otherwise_than_there() -> None:
    line = minerva(corrected_golds={"minerva:1": ("4.5e33", "4.5 \\times 10^{33}")}, left_out={"minerva:x": "relay"})
    assert "the claim lies outside the interval; otherwise than there: 1 gold corrected" in line
    assert "1 problem left out" in line
    assert "9.9 % of answers read outside a box" in line


@pytest.mark.parametrize(
    ("protocol", "end"),
    [
        ("open-rs", "outside the interval"),
        ("sober", "otherwise than there: asked with another temperature, top p"),
        ("plain", "otherwise than there: asked with another user template, max tokens"),
    ],
)
def test_a_claim_says_what_was_asked_otherwise_than_there(protocol: str, end: str) -> None:
    result = BenchmarkResult("aime24", tuple(f"aime24:{i}" for i in range(30)), ((Sample(True),),) * 30)
    mark = {"protocol": settings_of(PROTOCOLS[protocol])}
    assert str(published.claims(Evaluation("Open-RS3", {"aime24": result}, mark))[0]).endswith(end)


def test_every_protocol_asks_the_question() -> None:
    assert all(isinstance(p, Protocol) and "{question}" in p.user_template for p in PROTOCOLS.values())
