"""Repeats are found however they are spelled, and other uses of a template are kept."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from open_rs.config.curation import SourceConfig
from open_rs.data.duplicates import Family, find_families
from open_rs.data.intake import open_source
from open_rs.types import Problem

QUESTION = (
    "A farmer has 120 metres of fence and wants to close off a rectangular field along a river, so that only three "
    "sides need a fence. What is the largest area, in square metres, that the field can have?"
)


def same(one: str, other: str) -> bool:
    return one.strip("$ ") == other.strip("$ ")


def families(*rows: tuple[str, str], near: bool = True) -> list[Family]:
    return find_families(
        [Problem(str(i), question, answer, "p") for i, (question, answer) in enumerate(rows)], same, near
    )


REPEATS = {
    "white space": (QUESTION.replace(" ", "  "), "1800", "repeat"),
    "another spelling": (QUESTION.replace("120", "$120$").upper(), "1800", "respelled"),
    "some other words": (QUESTION.replace("wants to", "would like to"), "1800", "near"),
}


@pytest.mark.parametrize(("question", "answer", "kind"), REPEATS.values(), ids=REPEATS.keys())
def test_a_repeat_is_found_and_named(question: str, answer: str, kind: str) -> None:
    (family,) = families((QUESTION, "1800"), ("What is 2+2?", "4"), (question, answer))
    assert (family.rows, family.kinds[1], family.conflicting) == ((0, 2), kind, False)


DIFFERENT = {
    "another number": (QUESTION.replace("120", "140"), "2450"),
    "near, but another answer": (QUESTION.replace("area", "perimeter"), "180"),
    "brackets elsewhere": ("Compute $(1+2) \\cdot 3$.", "9"),
}


@pytest.mark.parametrize(("question", "answer"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_another_problem_is_kept(question: str, answer: str) -> None:
    assert families((QUESTION, "1800"), ("Compute $1+2 \\cdot 3$.", "7"), (question, answer)) == []


def test_answers_that_differ_only_as_strings_do_not_conflict() -> None:
    (family,) = families((QUESTION, "1800"), (QUESTION, "$1800$"))
    assert (family.exact_groups_that_differ, family.conflicting, family.keeper) == (1, False, 0)


def test_a_majority_settles_a_conflict_and_a_tie_does_not() -> None:
    (family,) = families((QUESTION, "7"), (QUESTION, "1800"), (QUESTION, "1800"))
    assert (family.conflicting, family.majority, family.keeper) == (True, 1, 1)
    (tie,) = families((QUESTION, "7"), (QUESTION, "1800"))
    assert (tie.conflicting, tie.majority) == (True, None)


def test_near_duplicates_are_left_alone_where_they_are_not_asked_for() -> None:
    assert families((QUESTION, "1"), (REPEATS["some other words"][0], "1"), near=False) == []


def test_near_duplicates_are_found_among_thousands_of_templates() -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(400)]
    rows = [(" ".join(draw.choices(words, k=40)) + f" {i}", str(i)) for i in range(3000)]
    planted = [(question.replace(question.split()[7], "changed", 1), answer) for question, answer in rows[:100]]
    found = families(*rows, *planted)
    assert sorted(family.rows for family in found) == [(i, 3000 + i) for i in range(100)]


def test_deepscaler_holds_what_is_known_of_it(shared_data: Path) -> None:
    rows = list(open_source(SourceConfig(name="deepscaler"), [shared_data / "train"]).rows)
    problems = [row for row in rows if isinstance(row, Problem)]
    assert len(rows) - len(problems) == 6
    found = find_families(problems, same, near=False)
    assert sum(kind == "repeat" for family in found for kind in family.kinds[1:]) == 1218
    assert sum(family.exact_groups_that_differ for family in found) == 176
