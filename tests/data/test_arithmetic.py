"""The generated task: right answers, splits that never meet, difficulty as asked for, clear errors."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_rs.config.schema import ArithmeticConfig
from open_rs.data.arithmetic import generate, list_all, one_operand_longer, sorted_form, split_of, write
from open_rs.types import UserError

TASKS = {
    "default": {},
    "products": {"operators": "+-*", "max_operands": 6, "max_digits": 3},
    "only minus": {"operators": "-", "max_operands": 5, "max_digits": 4},
    "only times": {"operators": "*", "max_operands": 3},
    "long": {"min_operands": 12, "max_operands": 12, "max_digits": 6},
}


def expressions(problems):
    return [problem.meta["expression"] for problem in problems]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_answers_and_difficulty_are_what_they_say(task, split):
    config = ArithmeticConfig(num_problems=100, **task)
    problems = generate(config, split)
    assert len({problem.id for problem in problems}) == len(problems) == 100
    for problem in problems:
        expression = problem.meta["expression"]
        assert problem.answer == str(eval(expression))
        assert problem.question.replace(" ", "") == f"Whatis{expression}?"
        assert config.min_operands <= problem.meta["operands"] <= config.max_operands
        assert problem.meta["digits"] <= config.max_digits
        assert set(expression) <= set("0123456789" + config.operators)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_prefix_falls_below_zero(task):
    for expression in expressions(generate(ArithmeticConfig(num_problems=100, **task), "train")):
        ends = [i for i, character in enumerate(expression) if character in "+-*"]
        assert all(eval(expression[:end]) >= 0 for end in [*ends, None])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(2, 4))
def test_splits_never_meet_whatever_the_seeds_and_difficulties(train_seed, held_out_seed, operands):
    train = generate(ArithmeticConfig(seed=train_seed, num_problems=200), "train")
    held_out = generate(ArithmeticConfig(seed=held_out_seed, num_problems=50, min_operands=operands), "held_out")
    assert not set(expressions(train)) & set(expressions(held_out))


@pytest.mark.parametrize(
    ("one", "other"), [("3+14-2", "14-2+3"), ("2*3+5", "5+3*2"), ("40+2+7", "7+40+2")], ids=["minus", "times", "plus"]
)
def test_a_reordering_stays_on_the_side_of_its_original(one, other):
    first, second = (parse(text) for text in (one, other))
    assert sorted_form(first) == sorted_form(second)
    assert split_of(first) == split_of(second)


def parse(text):
    spaced = "+ " + text.replace("+", " + ").replace("-", " - ").replace("*", " * ")
    words = spaced.split()
    return [(operator, int(operand)) for operator, operand in zip(words[::2], words[1::2], strict=True)]


def test_about_one_problem_in_five_is_held_out():
    steps = list(list_all(ArithmeticConfig(), 2))
    held_out = sum(split_of(s) == "held_out" for s in steps)
    assert 0.18 < held_out / len(steps) < 0.22
    assert len({write(s) for s in steps}) == len(steps)


def test_same_seed_same_problems_and_another_seed_others():
    config = ArithmeticConfig(num_problems=50)
    assert generate(config, "train") == generate(config, "train")
    assert generate(config, "train") != generate(config.model_copy(update={"seed": 1}), "train")
    assert generate(config, "train", 10) == generate(config, "train")[:10]


def test_difficulty_is_spread_about_evenly():
    operands = [problem.meta["operands"] for problem in generate(ArithmeticConfig(num_problems=3000), "train")]
    assert all(800 < operands.count(number) < 1200 for number in (2, 3, 4))


def test_one_operand_longer_is_longer_than_any_problem_of_the_task():
    longer = one_operand_longer(ArithmeticConfig(max_operands=4, num_problems=20))
    assert {problem.meta["operands"] for problem in generate(longer, "held_out")} == {5}
    assert one_operand_longer(ArithmeticConfig(max_operands=12)).max_operands == 13


def test_a_small_space_is_used_up_exactly_and_then_refused_with_its_size():
    tiny = ArithmeticConfig(max_operands=2, max_digits=1, operators="+")
    everything = list(list_all(tiny, 2))
    held_out = sum(split_of(steps) == "held_out" for steps in everything)
    assert len(generate(tiny, "held_out", held_out)) == held_out
    assert len(generate(tiny, "train", 81 - held_out)) == 81 - held_out
    with pytest.raises(UserError, match=f"{held_out + 1} held_out problems asked for, but only {held_out} different"):
        generate(tiny, "held_out", held_out + 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operators": "+/"}, "'\\+/' is not made of"),
        ({"operators": ""}, "'' is not made of"),
        ({"operators": "-", "min_operands": 12, "max_operands": 12, "max_digits": 1}, "only 0 different ones"),
    ],
    ids=["division", "none", "impossible"],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        generate(ArithmeticConfig(**settings), "train")
