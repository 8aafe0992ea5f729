"""The whole curation without model stages on real pools: time and memory, against the size of the pool.

    python benchmarks/curate_pipeline.py --data ../shared/data --json pipeline.json

Each size runs in a process of its own with an empty cache. The first sizes take the head of DeepScaleR; the last is
everything: DeepScaleR, AIME, MATH, GSM8K and DeepMath against all benchmarks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from open_rs.config.curation import CurationRecipe
from open_rs.data.curate import curate
from open_rs.data.publish import write_set
from open_rs.data.stages import NUM_GRADER_WORKERS

EVERYTHING = ("deepscaler", "aime_1983_2023", "math_train", "gsm8k_train", "deepmath")
RULES = "encoding empty too_long no_value link drawing figure proof multi_part multiple_choice"
STAGES = (
    {"stage": "deduplicate"},
    {"stage": "rules", "rules": RULES.split()},
    {"stage": "audit"},
    {"stage": "decontaminate"},
)


def recipe(data: Path, rows: int | None) -> CurationRecipe:
    sources = [{"name": name} for name in EVERYTHING] if rows is None else [{"name": "deepscaler", "limit": rows}]
    places = [str(data / "train"), str(data / "benchmarks")]
    return CurationRecipe.model_validate({"name": "pool", "sources": sources, "stages": STAGES, "directories": places})


def measure(data: Path, rows: int | None, results: multiprocessing.Queue) -> None:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        curated = curate(recipe(data, rows), Path(place) / "cache")
        write_set(curated, Path(place) / "set")
    own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = (own + NUM_GRADER_WORKERS * worker) / 2**20
    steps = [
        {"name": s.name, "in": s.rows_in, "kept": s.kept, "seconds": s.seconds, "notes": s.notes} for s in curated.steps
    ]
    rows_in = sum(origin.rows for origin in curated.origins)
    results.put({"rows": rows_in, "seconds": time.perf_counter() - started, "peak_gib": peak, "steps": steps})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 20_000, 40_000])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    lines = []
    for rows in [*asked.rows, None]:
        results: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(asked.data, rows, results))
        process.start()
        line = results.get()
        process.join()
        lines.append(line)
        print(f"{line['rows']:>7,} rows  {line['seconds']:6.1f} s  {line['peak_gib']:5.2f} GiB", flush=True)
        for step in line["steps"]:
            counts = f"{step['in']:>7,} -> {step['kept']:>7,}"
            print(f"    {step['name']:24} {counts}  {step['seconds']:6.1f} s  {step['notes'] or ''}")
    if asked.json:
        asked.json.write_text(json.dumps(lines, indent=2) + "\n")
    last = lines[-1]
    print(f"figure: curation_seconds {last['seconds']:.1f} for {last['rows']} rows, {last['peak_gib']:.2f} GiB")


if __name__ == "__main__":
    main()
