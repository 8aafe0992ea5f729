"""The grader against every kind of answer that it has met."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from grading.cases import BOXED
from grading.completion_cases import COMPLETIONS
from grading.unit_cases import UNITS
from open_rs.grading import Grader, normalise
from open_rs.grading.files import read_rows

WRAPPED = r"\\(?:mathrm|text|mbox)\s*\{[^{}]*[a-zA-Z][^{}]*\}"
UNIT = rf"(?P<unit>[\s$~]*(?:\\quad\s*)?/?\s*{WRAPPED}(?:\s|/|\\cdot|\^\{{-?\d\}}|{WRAPPED})*)"
BOX_AND_UNIT = re.compile(rf"\\boxed\{{(?P<box>[-\d.e]+)\}}{UNIT}(?!.*\\boxed)", re.DOTALL)
SUBSTANCE = re.compile(r"NaI|Bi|\{~B\}|vac|\{r\}|daps|distinct|right")  # grams of what? nobody can list them
NUMBER_AND_UNIT = re.compile(rf"\$?(?P<number>[-\d.]+(?: ?\\times ?10\^\{{-?\d+\}})?){UNIT}\$?")

ROWS = [
    pytest.param(gold, answer, verdict, id=f"{kind}: {answer!r} for {gold!r}")
    for kind, rows in (BOXED | UNITS).items()
    for gold, answer, verdict in rows
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, timeout_seconds=20) as grader:
        yield grader


@pytest.mark.parametrize(("gold", "answer", "verdict"), ROWS)
def test_answer_is_judged_right(grader: Grader, gold: str, answer: str, verdict: bool) -> None:
    assert grader.grade(gold, f"So the answer is \\boxed{{{answer}}}.").correct is verdict


@pytest.mark.parametrize(("gold", "completion", "verdict"), COMPLETIONS)
def test_the_right_part_of_a_completion_is_judged(
    grader: Grader, gold: str, completion: str, verdict: bool | None
) -> None:
    assert grader.grade(gold, completion).correct is verdict


@pytest.mark.parametrize(
    "text", sorted({text for rows in (BOXED | UNITS).values() for row in rows for text in row[:2]})
)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_every_firm_expectation_of_the_shared_cases_holds(grader: Grader, shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "grading/cases.jsonl").read_text().splitlines()]
    wrong = [
        row["name"]
        for row in rows
        if row["expected"] is not None and grader.grade(row["gold"], row["completion"]).correct is not row["expected"]
    ]
    assert len(rows) == 104
    assert wrong == []


def test_integer_labels_of_real_completions_are_all_met(grader: Grader, shared_data: Path) -> None:
    missed = []
    for name in ("completions_dev", "completions_r1_dev"):
        with gzip.open(shared_data / f"grading/{name}.jsonl.gz", "rt") as lines:
            rows = [row for row in map(json.loads, lines) if row["tier"] == "int"]
        missed += [r["uid"] for r in rows if grader.grade(r["gold"], r["completion"]).correct is not r["label"]]
    assert missed == []


def test_bare_numbers_of_minerva_are_right_for_golds_with_their_units(grader: Grader, shared_data: Path) -> None:
    """The units stand behind the boxes of the solutions; here they are taken into gold or answer."""
    solutions = [row["solution"] for row in read_rows(shared_data / "benchmarks/minerva_math.jsonl")]
    found = [match for match in map(BOX_AND_UNIT.search, solutions) if match and not SUBSTANCE.search(match["unit"])]
    missed = [
        match.group()
        for match in found
        if not grader.grade(match["box"] + match["unit"], f"\\boxed{{{match['box']}}}").correct
        or not grader.grade(match["box"], f"\\boxed{{{match['box']}{match['unit']}}}").correct
    ]
    assert len(found) > 50
    assert missed == []


def test_bare_numbers_are_right_for_every_gold_of_math_with_a_unit(grader: Grader, shared_data: Path) -> None:
    rows = [
        *read_rows(shared_data / "benchmarks/math500.jsonl"),
        *read_rows(shared_data / "train/math_train_7474.jsonl.gz"),
    ]
    found = [match for match in (NUMBER_AND_UNIT.fullmatch(row["answer"] or "") for row in rows) if match]
    found = [match for match in found if not SUBSTANCE.search(match["unit"])]
    missed = [m.group() for m in found if not grader.grade(m.group(), f"\\boxed{{{m['number']}}}").correct]
    assert len(found) > 30
    assert missed == []
