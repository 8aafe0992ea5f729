"""What the tiny model was taught: careful traces are right line by line, hurried ones only sometimes."""

import random

import pytest

from open_rs.assets.traces import CAREFUL, HURRIED, reason, work_columns, write_trace
from open_rs.config.schema import ArithmeticConfig
from open_rs.data.arithmetic import generate

PROBLEMS = generate(ArithmeticConfig(num_problems=400, max_operands=5), "train")


def test_a_careful_trace_reads_as_the_model_card_shows_it():
    assert write_trace("47+38-12", CAREFUL, random.Random(0)) == (
        "47+38-12\nones 7+8=15, tens 4+3+1=8, so 85-12\nones 5-2=3, tens 8-1=7, so 73\n</think>\nAnswer: \\boxed{73}"
    )


def test_every_line_of_a_careful_trace_is_worth_the_answer():
    for problem in PROBLEMS:
        reasoning, answer = reason(problem.meta["expression"], CAREFUL, random.Random(0))
        assert str(answer) == problem.answer
        assert {eval(line.rpartition("so ")[2]) for line in reasoning.split("\n")} == {answer}


def test_every_digit_sum_of_a_careful_trace_holds():
    for problem in PROBLEMS:
        reasoning, _ = reason(problem.meta["expression"], CAREFUL, random.Random(0))
        sums = [word.strip(",") for word in reasoning.split() if "=" in word]
        assert all(eval(text.replace("=", "==")) for text in sums)


@pytest.mark.parametrize(
    ("total", "operator", "operand", "texts"),
    [
        (47, "+", 38, ["7+8=15", "4+3+1=8"]),
        (53, "-", 27, ["13-7=6", "5-2-1=2"]),
        (103, "-", 4, ["13-4=9", "10-0-1=9", "1-0-1=0"]),
        (5, "+", 97, ["5+7=12", "0+9+1=10"]),
    ],
    ids=["carry", "borrow", "borrow twice", "longer operand"],
)
def test_columns_carry_and_borrow(total, operator, operand, texts):
    assert [column.text for column in work_columns(total, operator, operand, forget_carry=False)] == texts


def test_a_hurried_pupil_is_right_about_half_of_the_time_and_never_below_zero():
    rng = random.Random(0)
    answers = [(reason(problem.meta["expression"], HURRIED, rng)[1], int(problem.answer)) for problem in PROBLEMS]
    assert 0.35 < sum(given == right for given, right in answers) / len(answers) < 0.65
    assert min(given for given, _ in answers) >= 0
