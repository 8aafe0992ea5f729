"""Completions made elsewhere are graded, whoever wrote the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from open_rs.evaluate.benchmarks import load_sets
from open_rs.evaluate.compare import compare
from open_rs.evaluate.outputs import grade_outputs, read_outputs
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.run import regrade
from open_rs.grading import Grader
from open_rs.types import Problem, UserError

BOX = "so \\boxed{%s}"


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1) as running:
        yield running


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SHAPES = {
    "own gold": [{"benchmark": "exam", "problem": f"Q{i}", "gold": str(i), "completion": BOX % i} for i in range(4)],
    "other names": [{"question": f"Q{i}", "expected_answer": i, "response": BOX % i, "id": i} for i in range(4)],
    "no question": [{"id": i, "ground_truth": str(i), "output": BOX % i} for i in range(4)],
    "lists of samples": [{"problem": f"Q{i}", "gold": [str(i)], "completions": [BOX % i] * 3} for i in range(4)],
}


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES.keys())
def test_rows_with_their_own_gold_need_no_benchmark(tmp_path: Path, grader: Grader, rows: list[dict[str, Any]]) -> None:
    (outputs,) = read_outputs(write(tmp_path / "exam.jsonl", rows)).values()
    found = grade_outputs("someone", outputs, grader).benchmarks["exam"]
    assert (len(found.problem_ids), found.avg) == (4, 1.0)
    assert found.k == (3 if "completions" in rows[0] else 1)


def test_each_model_of_a_file_is_a_result_and_repeated_questions_are_samples(tmp_path: Path, grader: Grader) -> None:
    rows = [
        {"model": model, "problem": f"Q{i}", "gold": str(i), "completion": BOX % (i if model == "good" else 9)}
        for model in ("good", "bad")
        for i in range(3)
        for _ in range(2)
    ]
    models = read_outputs(write(tmp_path / "two.jsonl", rows))
    good, bad = (grade_outputs(name, models[name], grader) for name in ("good", "bad"))
    assert (good.avg, bad.avg, good.benchmarks["two"].k) == (1.0, 0.0, 2)
    assert compare(good, bad).benchmarks["two"].difference.value == 1.0


def test_rows_without_gold_are_matched_to_known_problems_by_id_or_question(tmp_path: Path, grader: Grader) -> None:
    known = {"exam": [Problem(f"exam:{i}", f"What is {i}?", str(i), "exam") for i in range(3)]}
    rows = [
        {"id": "exam:0", "completion": BOX % 0},
        {"id": 1, "benchmark": "exam", "completion": BOX % 1},
        {"problem": "What  is 2?", "completion": BOX % 2},
        {"id": "elsewhere", "completion": BOX % 2},
    ]
    (outputs,) = read_outputs(write(tmp_path / "o.jsonl", rows), known).values()
    found = grade_outputs("someone", outputs, grader)
    assert found.benchmarks["exam"].problem_ids == ("exam:0", "exam:1", "exam:2")
    assert (found.avg, outputs.unmatched) == (1.0, 1)
    assert "1 rows name no known problem" in found.warnings[0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"id": "x", "completion": "1"}], "no row carries a gold"),
        ([{"id": "x", "gold": "1"}], "no completion"),
    ],
    ids=["no gold and no known id", "no completion"],
)
def test_a_file_that_can_not_be_graded_is_refused(tmp_path: Path, rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_outputs(write(tmp_path / "o.jsonl", rows))


def test_reasoning_that_the_prompt_opened_is_not_graded(tmp_path: Path, grader: Grader) -> None:
    rows = [
        {"problem": "A", "gold": "1", "completion": "think</think> \\boxed{1}"},
        {"problem": "B", "gold": "2", "completion": "still thinking of \\boxed{2}"},
    ]
    (outputs,) = read_outputs(write(tmp_path / "r1.jsonl", rows)).values()
    assert grade_outputs("r1", outputs, grader).avg == 0.5


def test_grading_again_gives_the_same_result_and_generates_nothing(tmp_path: Path, grader: Grader) -> None:
    (outputs,) = read_outputs(write(tmp_path / "exam.jsonl", SHAPES["own gold"])).values()
    before = grade_outputs("someone", outputs, grader, tmp_path / "out")
    assert (
        regrade(tmp_path / "out", grader).summary() == before.summary() == Evaluation.load(tmp_path / "out").summary()
    )


def test_another_files_completions_are_not_mixed_into_a_result(tmp_path: Path, grader: Grader) -> None:
    def grade(answer: int) -> Evaluation:
        rows = [{"problem": "Q", "gold": "1", "completion": BOX % answer}]
        (outputs,) = read_outputs(write(tmp_path / "exam.jsonl", rows)).values()
        return grade_outputs("m", outputs, grader, tmp_path / "out")

    assert grade(1).avg == grade(1).avg == 1.0
    with pytest.raises(UserError, match="holds another completion"):
        grade(2)


def test_how_a_completion_ended_stays_unknown_where_the_file_does_not_say(tmp_path: Path, grader: Grader) -> None:
    (silent,) = read_outputs(write(tmp_path / "exam.jsonl", SHAPES["own gold"])).values()
    told = [row | {"finish_reason": "length" if i else "stop"} for i, row in enumerate(SHAPES["own gold"])]
    (spoken,) = read_outputs(write(tmp_path / "exam.jsonl", told)).values()
    found = [grade_outputs("m", outputs, grader, tmp_path / str(i)) for i, outputs in enumerate((silent, spoken))]
    assert [one.benchmarks["exam"].diagnostics["truncated"] for one in found] == [None, 0.75]
    assert [Evaluation.load(tmp_path / str(i)).summary() for i in range(2)] == [one.summary() for one in found]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("amie24", "did you mean `aime24`"),
        ("deepscaler", "a training set"),
        ("./nowhere.jsonl", "no such file"),
    ],
)
def test_a_set_that_is_none_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_sets([name])


def test_a_file_with_other_columns_is_refused_with_its_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`stem`"):
        load_sets([str(write(tmp_path / "exam.jsonl", [{"stem": "Q", "key": "1"}]))])


def test_a_persons_own_file_is_a_set(tmp_path: Path) -> None:
    sets = load_sets([str(write(tmp_path / "exam.jsonl", [{"problem": "Q", "answer": "1"}])), "arithmetic"], limit=3)
    assert {name: len(problems) for name, problems in sets.problems.items()} == {"exam": 1, "arithmetic": 3}


def test_the_five_benchmarks_have_their_sizes(shared_data: Path) -> None:
    names = ["aime24", "math_500", "amc23", "minerva", "olympiadbench"]
    sets = load_sets(names, shared_data / "benchmarks")
    assert [len(sets.problems[name]) for name in names] == [30, 500, 40, 272, 675]
