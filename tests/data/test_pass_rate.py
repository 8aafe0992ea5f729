"""Pass rates come with bounds that hold, from few samples, and no sample is drawn twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from open_rs.data.judge import read_prompt, read_reply
from open_rs.data.pass_rate import Sampler, Store, Wanted, bounds, measure, samples_to_ask
from open_rs.data.plan import expected_samples
from open_rs.grading import Grader
from open_rs.prompts import Prompt
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.scripted import ScriptedEngine
from open_rs.types import Problem, Rollout, UserError

WANTED = Wanted()
PROBLEMS = [Problem(f"p{i}", f"Question {i}", "1", "s") for i in range(30)]


class CountingEngine(ScriptedEngine):
    """A scripted engine that counts what it samples, and is lost after `lifetime` samples."""

    def __init__(self, lifetime: int = 10**9) -> None:
        super().__init__(lambda prompt, sample: "\\boxed{1}" if self.is_right(prompt.text, sample) else "\\boxed{0}")
        self.drawn: Counter[tuple[str, int]] = Counter()
        self.lifetime = lifetime

    @staticmethod
    def is_right(text: str, sample: int) -> bool:
        return random.Random(f"{text} {sample}").random() < (int(text.split()[1]) % 11) / 10

    def generate(self, requests: list[Request], sampling: Sampling) -> Iterator[Rollout]:  # pyright: ignore
        for rollout in super().generate(requests, sampling):
            if self.drawn.total() >= self.lifetime:
                raise UserError("endpoint: stopped answering")
            self.drawn[rollout.problem_id, rollout.sample] += 1
            yield rollout


def sampler(engine: ScriptedEngine) -> Sampler:
    return Sampler(engine, lambda p: Prompt(p.id, (), p.question, (1,)), Sampling(max_tokens=64), "identity")


def rates(engine: ScriptedEngine, path: Path, wanted: Wanted = WANTED) -> dict[str, tuple[int, int]]:
    with Grader() as grader:
        found = measure(PROBLEMS, sampler(engine), grader, wanted, Store(path))
        return {problem.id: (rate.num_correct, rate.num_samples) for problem, rate in found}


def test_a_lost_endpoint_costs_no_sample_and_changes_no_rate(tmp_path: Path) -> None:
    whole = rates(CountingEngine(), tmp_path / "whole.jsonl")
    lost = CountingEngine(lifetime=150)
    with pytest.raises(UserError, match="stopped answering"):
        rates(lost, tmp_path / "cut.jsonl")
    with (tmp_path / "cut.jsonl").open("a") as file:
        file.write('{"problem": "half a li')
    again = CountingEngine()
    assert rates(again, tmp_path / "cut.jsonl") == whole
    assert max((lost.drawn + again.drawn).values()) == 1
    assert again.drawn.total() == sum(samples for _, samples in whole.values()) - 150


def test_a_narrower_bound_later_adds_samples_to_those_that_are_there(tmp_path: Path) -> None:
    first, second = CountingEngine(), CountingEngine()
    rates(first, tmp_path / "s.jsonl", Wanted(half_width=0.25))
    rates(second, tmp_path / "s.jsonl")
    assert max((first.drawn + second.drawn).values()) == 1


def test_a_problem_whose_gold_grades_nobody_is_asked_once_and_marked(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda prompt, sample: "\\boxed{1}")
    with Grader() as grader:
        problem = Problem("p", "Question 1", "$", "s")
        ((_, rate),) = measure([problem], sampler(engine), grader, WANTED, Store(tmp_path / "s.jsonl"))
    assert (rate.gradable, rate.num_samples) == (False, 0)


def draw_until_narrow(rate: float, seed: int, wanted: Wanted) -> tuple[int, int]:
    draw = random.Random(seed)
    correct = samples = 0
    while more := samples_to_ask(correct, samples, wanted):
        correct += sum(draw.random() < rate for _ in range(more))
        samples += more
    return correct, samples


@pytest.mark.parametrize(
    ("a", "b", "share"), [(0.3, 0.3, 0.95), (1, 1, 0.93), (3, 3, 0.91)], ids=["U-shaped", "uniform", "middling"]
)
def test_the_stated_bounds_hold_the_true_rate_although_sampling_stops_early(a: float, b: float, share: float) -> None:
    draw = random.Random(7)
    held = 0
    for seed in range(1500):
        rate = draw.betavariate(a, b)
        correct, samples = draw_until_narrow(rate, seed, WANTED)
        lower, upper = bounds(correct, samples, WANTED.confidence)
        assert (upper - lower) / 2 <= WANTED.half_width
        held += lower <= rate <= upper
    assert held / 1500 >= share


def test_mixed_difficulty_needs_forty_percent_fewer_samples_than_a_fixed_number() -> None:
    draw = random.Random(3)
    spent = [draw_until_narrow(draw.betavariate(0.3, 0.3), seed, WANTED)[1] for seed in range(800)]
    fixed = next(n for n in range(1, 99) if max(half_width(x, n) for x in range(n + 1)) <= WANTED.half_width)
    assert (fixed, sum(spent) / len(spent) < 0.6 * fixed) == (41, True)


def half_width(correct: int, samples: int) -> float:
    lower, upper = bounds(correct, samples, WANTED.confidence)
    return (upper - lower) / 2


def test_no_sample_is_asked_for_that_could_not_have_been_needed() -> None:
    assert samples_to_ask(0, 0, WANTED) == 7
    assert samples_to_ask(0, 7, WANTED) == samples_to_ask(7, 7, WANTED) == 0
    assert samples_to_ask(1, 1, Wanted(max_samples=1, min_samples=1)) == 0
    assert samples_to_ask(0, 0, Wanted(max_samples=3, min_samples=1)) == 3


def test_the_plan_s_mean_is_the_mean_over_even_rates() -> None:
    draw = random.Random(1)
    spent = [draw_until_narrow(draw.random(), seed, WANTED)[1] for seed in range(4000)]
    assert expected_samples(WANTED) == pytest.approx(sum(spent) / 4000, rel=0.03)


@pytest.mark.parametrize(
    ("reply", "read"),
    [("Yes", True), ("**No.**", False), ("<think>yes?</think>\nNo", False), ("Perhaps", None), ("", None)],
)
def test_a_reply_is_read_by_its_first_word(reply: str, read: bool | None) -> None:
    assert read_reply(reply) is read


def test_a_judge_s_prompt_needs_a_place_for_the_question(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Is it good?")
    with pytest.raises(UserError, match="never see the problem"):
        read_prompt(str(tmp_path / "prompt.txt"))
    with pytest.raises(UserError, match="neither a file nor one of noisy"):
        read_prompt("noisy-v9")
