"""An evaluation loses no sample, doubles none, and ends the same however often it is stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from open_rs.evaluate.compare import compare, paired
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.run import evaluate
from open_rs.grading import Grader
from open_rs.prompts import Prompt
from open_rs.rollout.engine import Request, Sampling
from open_rs.rollout.scripted import ScriptedEngine
from open_rs.types import Problem, Rollout, UserError

PROTOCOL = Protocol("test", samples=4, max_tokens=200)


class PlainTokenizer:
    """Characters as tokens, no chat template."""

    chat_template = None

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


class KilledError(Exception):
    """Stands for SIGKILL: the evaluation gets no chance to tidy up."""


class DyingEngine(ScriptedEngine):
    """Stops after so many rollouts."""

    def __init__(self, script: object, lifetime: int) -> None:
        super().__init__(script)  # pyright: ignore[reportArgumentType]
        self.lifetime, self.asked = lifetime, 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Rollout]:
        for rollout in super().generate(requests, sampling):
            if self.asked == self.lifetime:
                raise KilledError
            self.asked += 1
            yield rollout


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1) as running:
        yield running


def problems(name: str, count: int) -> list[Problem]:
    return [Problem(f"{name}:{i}", f"What is {i} + 1?", str(i + 1), name) for i in range(count)]


def right_every_third(prompt: Prompt, sample: int) -> str:
    number = int(prompt.problem_id.split(":")[1])
    return f"I think \\boxed{{{number + 1 if (number + sample) % 3 else number}}}"


SETS = {"sums": problems("sums", 7), "more": problems("more", 5)}


def run(grader: Grader, out: Path | None = None, engine: ScriptedEngine | None = None, **options: object) -> Evaluation:
    engine = engine or ScriptedEngine(right_every_third)
    return evaluate(engine, PlainTokenizer(), SETS, PROTOCOL, grader=grader, out=out, **options)  # pyright: ignore


def test_an_evaluation_counts_every_sample_of_every_problem(grader: Grader) -> None:
    found = run(grader)
    assert {name: result.num_samples.tolist() for name, result in found.benchmarks.items()} == {
        "sums": [4] * 7,
        "more": [4] * 5,
    }
    expected = sum(bool((i + s) % 3) for i in range(7) for s in range(4)) / 28
    assert found.benchmarks["sums"].avg == pytest.approx(expected)
    assert found.benchmarks["sums"].avg in found.benchmarks["sums"].ci95


def test_ten_kills_change_nothing(grader: Grader, tmp_path: Path) -> None:
    whole = run(grader, tmp_path / "whole")
    for lifetime in (0, 1, 5, 3, 2, 7, 1, 4, 6, 2):
        with pytest.raises(KilledError):
            run(grader, tmp_path / "killed", DyingEngine(right_every_third, lifetime))
        with (tmp_path / "killed" / "completions.jsonl").open("a") as file:
            file.write('{"benchmark": "sums", "problem')  # a line that was being written
    resumed = run(grader, tmp_path / "killed")
    assert resumed.summary() == whole.summary()
    for name in ("completions.jsonl", "results.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    keys = [tuple(row[k] for k in ("problem_id", "sample")) for row in rows(tmp_path / "killed" / "completions.jsonl")]
    assert len(keys) == len(set(keys)) == 4 * 12


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_four_samples_extend_to_eight_without_sampling_again(grader: Grader, tmp_path: Path) -> None:
    run(grader, tmp_path)
    engine = DyingEngine(right_every_third, 4 * 12)
    extended = run(grader, tmp_path, engine, samples=8)
    assert engine.asked == 4 * 12
    assert extended.summary()["benchmarks"] == run(grader, samples=8).summary()["benchmarks"]


def test_a_directory_of_other_settings_is_refused(grader: Grader, tmp_path: Path) -> None:
    run(grader, tmp_path)
    with pytest.raises(UserError, match="temperature"):
        evaluate(
            ScriptedEngine(right_every_third),
            PlainTokenizer(),
            SETS,
            Protocol("test", samples=4, max_tokens=200, temperature=0.9),
            grader=grader,
            out=tmp_path,
        )


def test_a_result_is_read_back_as_it_was(grader: Grader, tmp_path: Path) -> None:
    found = run(grader, tmp_path)
    assert Evaluation.load(tmp_path).summary() == found.summary()


def test_problems_whose_gold_is_at_fault_are_listed_and_scored_for_nobody(grader: Grader) -> None:
    relay = Problem("relay:1", "Let $T=T N Y W R$. Compute $T+1$.", "3", "relay")
    spelled = Problem("relay:2", "Compute the area of pentagon $T N Y W R$.", "20", "relay")
    found = evaluate(
        ScriptedEngine(lambda prompt, sample: "\\boxed{20}"),
        PlainTokenizer(),
        {"relay": [relay, spelled]},
        PROTOCOL,
        grader=grader,
    )
    result = found.benchmarks["relay"]
    assert result.problem_ids == ("relay:2",)
    assert list(result.left_out) == ["relay:1"]
    assert (result.avg, result.avg_with_unsolvable) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("sets", "samples", "words"),
    [
        (SETS, 0, "at least 1 sample"),
        ({"sums": []}, 4, "no problems"),
        ({}, 4, "no problems"),
        ({"a": problems("x", 2), "b": problems("x", 2)}, 4, "stands twice"),
    ],
    ids=["no samples", "an empty set", "no set", "an id in two sets"],
)
def test_bad_input_is_refused_with_a_reason(grader: Grader, sets: dict, samples: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        evaluate(ScriptedEngine({}), PlainTokenizer(), sets, PROTOCOL, samples=samples, grader=grader)


def test_the_same_evaluation_twice_differs_by_nothing(grader: Grader) -> None:
    found = paired(run(grader).benchmarks["sums"], run(grader).benchmarks["sums"])
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.ci95.width > 0


def test_a_better_model_is_seen_and_the_average_counts_each_benchmark_once(grader: Grader) -> None:
    worse = run(grader)
    better = run(grader, engine=ScriptedEngine(lambda p, s: f"\\boxed{{{int(p.problem_id.split(':')[1]) + 1}}}"))
    found = compare(better, worse)
    assert found.benchmarks["sums"].difference.value == pytest.approx(1 - worse.benchmarks["sums"].avg)
    assert found.pooled.value == pytest.approx(1 - worse.avg)
    assert found.benchmarks["sums"].adjusted_p >= found.benchmarks["sums"].difference.p_value
