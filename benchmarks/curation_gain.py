"""Does a curated set train better than an uncurated one of the same size? The demo's task, several seeds, one test.

    python benchmarks/curation_gain.py --seeds 0 1 2 --out runs/curation-gain --json curation_gain.json

The pool mixes arithmetic from trivial to hopeless and holds planted faults: wrong golds and repeats. The curated set is
drawn from what deduplication (conflicts dropped) and a pass-rate band of the embedded model leave; the uncurated set is
drawn from the pool. Both have as many rows and train with the recipe `demo` under the same seeds. All models
then answer the same held-out problems, 8 samples each; problems are paired over the two sets, and the means over seeds
are compared with the test of `open_rs.stats`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from open_rs.config.curation import CurationRecipe
from open_rs.config.load import load_recipe
from open_rs.config.schema import ArithmeticConfig, ModelConfig, PromptConfig, RolloutConfig
from open_rs.data import arithmetic
from open_rs.data.curate import curate
from open_rs.data.model_stages import build_sampler
from open_rs.data.pass_rate import Store, Wanted, measure
from open_rs.data.publish import write_set
from open_rs.grading import Grader
from open_rs.stats import paired_difference
from open_rs.train.run import train
from open_rs.types import Problem

KINDS = ((2, 2, 2), (2, 4, 1), (2, 4, 2), (4, 6, 3), (6, 8, 4))  # operands from, to, digits
WRONG_SHARE, REPEAT_SHARE = 0.05, 0.1
SETS = ("uncurated", "curated")
HELD_OUT_EACH, SAMPLES = 60, 8


def write_pool(path: Path, each: int, seed: int) -> None:
    """A pool with planted faults, as rows of a JSONL file."""
    draw = random.Random(seed)
    problems: list[Problem] = []
    for least, most, digits in KINDS:
        settings = ArithmeticConfig(
            min_operands=least, max_operands=most, max_digits=digits, num_problems=each, seed=seed
        )
        problems += arithmetic.generate(settings, "train")
    rows = [{"id": f"{i}", "problem": p.question, "answer": _gold(p, draw)} for i, p in enumerate(problems)]
    rows += [{**row, "id": f"again-{row['id']}"} for row in draw.sample(rows, int(REPEAT_SHARE * len(rows)))]
    draw.shuffle(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _gold(problem: Problem, draw: random.Random) -> str:
    return str(int(problem.answer) + draw.choice((-2, -1, 1, 2))) if draw.random() < WRONG_SHARE else problem.answer


def make_sets(pool: Path, place: Path, rows: int) -> None:
    """Write both sets, of `rows` rows each."""
    band = {
        "stage": "pass_rate", "above": 0.15, "below": 0.85, "max_samples": 16, "half_width": 0.2,
        "rollout": {"max_completion_length": 256, "max_concurrent": 128, "temperature": 1.0},
    }  # fmt: skip
    stages: dict[str, list[dict[str, Any]]] = {"uncurated": [], "curated": [{"stage": "deduplicate"}, band]}
    for name in SETS:
        recipe = CurationRecipe.model_validate(
            {
                "name": name,
                "sources": [{"path": str(pool)}],
                "stages": [*stages[name], {"stage": "sample", "rows": rows}],
                "benchmarks": [],
            }
        )
        curated = curate(recipe, place / "cache")
        for step in curated.steps:
            print(f"{name:10} {step.name:20} {step.rows_in:>6} -> {step.kept:>6}  {dict(step.reasons)}", flush=True)
        write_set(curated, place / name)


def train_all(place: Path, seeds: Sequence[int], steps: int) -> dict[str, list[list[float]]]:
    """Held-out rates of a model for each set and seed: set -> [seeds][problems]; finished runs are not repeated."""
    found: dict[str, list[list[float]]] = {name: [] for name in SETS}
    for seed in seeds:
        for name in SETS:
            run = place / f"{name}-seed-{seed}"
            if not (run / "summary.json").is_file():
                settings = [f"data.path={place / name}", "data.name=null", "validation.num_problems=0"]
                train(load_recipe("demo", [*settings, f"train.seed={seed}", f"train.max_steps={steps}"]), run)
            found[name].append(held_out_rates(run / "model", place / "held-out"))
            print(f"{name:10} seed {seed}: held-out accuracy {fmean(found[name][-1]):.3f}", flush=True)
    return found


def held_out_rates(model: Path, store: Path) -> list[float]:
    """Pass rate of a model on each held-out problem of the pool's kinds."""
    problems: list[Problem] = []
    for least, most, digits in KINDS:
        settings = ArithmeticConfig(min_operands=least, max_operands=most, max_digits=digits, seed=1)
        problems += arithmetic.generate(settings, "held_out", HELD_OUT_EACH)
    wanted = Wanted(half_width=1e-6, min_samples=SAMPLES, max_samples=SAMPLES)
    rollout = RolloutConfig(max_completion_length=256, max_concurrent=128)
    sampler = build_sampler(ModelConfig(name_or_path=str(model)), rollout, PromptConfig(), seed=0)
    with Grader() as grader:
        held = Store(store / f"{sampler.identity[:24]}.jsonl")
        return [rate.value for _, rate in measure(problems, sampler, grader, wanted, held)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--each", type=int, default=400, help="problems of each of the five kinds in the pool")
    parser.add_argument("--rows", type=int, default=500, help="rows of each set")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("runs/curation-gain"))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    write_pool(asked.out / "pool.jsonl", asked.each, seed=0)
    make_sets(asked.out / "pool.jsonl", asked.out, asked.rows)
    found = train_all(asked.out, asked.seeds, asked.steps)
    means = {name: [fmean(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    counts = [SAMPLES * len(asked.seeds)] * len(means["curated"])
    difference = paired_difference(means["curated"], means["uncurated"], counts, counts)
    by_seed = {name: [fmean(rates) for rates in runs] for name, runs in found.items()}
    if asked.json:
        asked.json.write_text(json.dumps({"by_seed": by_seed, "difference": asdict(difference)}, indent=2) + "\n")
    print(f"by seed: {by_seed}")
    print(f"figure: curation_gain {difference}")


if __name__ == "__main__":
    main()
