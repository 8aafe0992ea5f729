"""Early stopping of pass rates: do the stated bounds hold, and how many samples does it spare?

    python benchmarks/curate_pass_rate.py --json pass_rate.json      the embedded model, arithmetic of mixed difficulty
    python benchmarks/curate_pass_rate.py --simulate                 drawn rates, no model

The truth is the share of 64 samples; the rival is the fixed number of samples whose widest interval is as narrow
as the widest that early stopping states. Early stopping sees the first of the same 64 samples (`same`), and, in a
second count, is judged by 64 samples that it never saw (`fresh`); drawn rates are known themselves (`true`).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from open_rs.config.schema import ArithmeticConfig, ModelConfig, PromptConfig, RolloutConfig
from open_rs.data import arithmetic
from open_rs.data.model_stages import build_sampler
from open_rs.data.pass_rate import Store, Wanted, bounds, measure, problem_key, samples_to_ask
from open_rs.grading import Grader
from open_rs.types import Problem

WANTED = Wanted()
TRUTH = 64
KINDS = (  # operands from, to, digits, operators: from mostly solved to never
    (2, 2, 1, "+-"), (2, 3, 1, "+-"), (2, 4, 2, "+-"), (3, 5, 2, "+-"),
    (4, 6, 3, "+-"), (2, 3, 2, "*"), (6, 8, 4, "+-"), (2, 2, 2, "+-"),
)  # fmt: skip
SIMULATED = {"U-shaped, Beta(0.3, 0.3)": (0.3, 0.3), "uniform": (1, 1), "middling, Beta(3, 3)": (3, 3)}


def mixed_problems(each: int) -> list[Problem]:
    """So many problems of every kind of difficulty."""
    found: list[Problem] = []
    for seed, (least, most, digits, operators) in enumerate(KINDS):
        settings = ArithmeticConfig(
            min_operands=least, max_operands=most, max_digits=digits, operators=operators, num_problems=each, seed=seed
        )
        found += arithmetic.generate(settings, "train")
    return found


def sample_model(problems: Sequence[Problem], store: Path, seed: int) -> list[list[bool]]:
    """64 graded samples of each problem, in order: [problems][64]."""
    rollout = RolloutConfig(max_completion_length=160, max_concurrent=128)
    sampler = build_sampler(ModelConfig(), rollout, PromptConfig(), seed)
    held = Store(store)
    everything = Wanted(half_width=1e-6, min_samples=TRUTH, max_samples=TRUTH)
    with Grader() as grader:
        for _ in measure(problems, sampler, grader, everything, held):
            pass
    return [[sample.correct is True for sample in held.counted(problem_key(problem))] for problem in problems]


def simulate(
    alpha: float, beta: float, count: int, seed: int
) -> tuple[list[list[bool]], list[list[bool]], list[float]]:
    draw = random.Random(seed)
    rates = [draw.betavariate(alpha, beta) for _ in range(count)]
    seen, fresh = ([[draw.random() < rate for _ in range(TRUTH)] for rate in rates] for _ in range(2))
    return seen, fresh, rates


def judge(seen: list[list[bool]], fresh: list[list[bool]], rates: list[float] | None = None) -> dict[str, float]:
    """Coverage by both truths, samples spent, and the fixed number that states bounds as narrow."""
    spent, same, unseen, true, widest = 0, 0, 0, 0, 0.0
    for samples, others, rate in zip(seen, fresh, rates or [0.0] * len(seen), strict=True):
        drawn = 0
        while more := samples_to_ask(sum(samples[:drawn]), drawn, WANTED):
            drawn += more
        lower, upper = bounds(sum(samples[:drawn]), drawn, WANTED.confidence)
        widest = max(widest, (upper - lower) / 2)
        spent += drawn
        same += lower <= sum(samples) / TRUTH <= upper
        true += lower <= rate <= upper
        unseen += lower <= sum(others) / TRUTH <= upper
    fixed = next(number for number in range(1, 999) if widest_of(number) <= widest)
    mean = spent / len(seen)
    known = {} if rates is None else {"coverage_true": true / len(seen)}
    return {
        "problems": len(seen), "mean_samples": mean, "fixed_samples": fixed, "spared": 1 - mean / fixed,
        "widest_half_width": widest, "coverage_same": same / len(seen), "coverage_fresh": unseen / len(seen),
        **known,
    }  # fmt: skip


def widest_of(samples: int) -> float:
    """The half-width of the widest interval that so many samples can give."""
    intervals = (bounds(correct, samples, WANTED.confidence) for correct in range(samples + 1))
    return max((upper - lower) / 2 for lower, upper in intervals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--each", type=int, default=20, help="problems of each of the eight kinds")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    if asked.simulate:
        for name, (alpha, beta) in SIMULATED.items():
            results[name] = judge(*simulate(alpha, beta, 20_000, seed=1))
    else:
        problems = mixed_problems(asked.each)
        with tempfile.TemporaryDirectory() as place:
            seen = sample_model(problems, Path(place) / "seen.jsonl", seed=0)
            fresh = sample_model(problems, Path(place) / "fresh.jsonl", seed=1)
        results["open-rs-tiny on arithmetic"] = judge(seen, fresh)
    for name, found in results.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")
    last = list(results.values())[-1]
    print(f"figure: pass_rate_samples_spared {last['spared']:.3f} with coverage {last['coverage_same']:.3f}")


if __name__ == "__main__":
    main()
