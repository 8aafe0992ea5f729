"""Sampled tokens over update seconds on ragged lengths, against TRL, in fp32 and bf16 on the CPU.

Completion lengths are log-normal with a median of a quarter of the limit. Each precision is measured with 40 % of the
groups without signal, which is what counts, and with none.

    python benchmarks/learner_speed.py --json speed.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from learner_sides import Job, ensure_rival, log_normal_lengths, make_model, measure

SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
GROUPS, GENERATIONS, LIMIT, PROMPT = 10, 4, 512, 32
SILENT = {"40 % without signal": 4, "all with signal": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    ensure_rival()
    with tempfile.TemporaryDirectory() as directory:
        make_model(Path(directory), **SIZES)
        rows = [
            compare(directory, dtype, name, silent, arguments.rounds)
            for dtype in ("float32", "bfloat16")
            for name, silent in SILENT.items()
        ]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        speeds = "  ".join(f"{side} {speed:7.0f} tokens/s" for side, speed in row["tokens_per_second"].items())
        ratios = f"{row['ratio']:5.2f} x ({row['cpu_ratio']:.2f} x by processor time)"
        print(f"{row['dtype']:9} {row['groups']:20} {speeds}  {ratios}")
    figure = min(row["ratio"] for row in rows if row["groups"] == next(iter(SILENT)))
    print(f"figure: {figure:.2f} x TRL's sampled tokens per second of update, the lesser of fp32 and bf16")


def compare(directory: str, dtype: str, name: str, silent: int, rounds: int) -> dict[str, Any]:
    """Alternate the sides; the best of each side's times counts."""
    lengths = log_normal_lengths(GROUPS, GENERATIONS, LIMIT)
    job = Job(directory, lengths, PROMPT, silent_groups=silent, dtype=dtype, tokens_per_micro_batch=2048)
    sides = {"ours": job, "trl": replace(job, rows_per_micro_batch=8)}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, one in sides.items():
            runs[side].append(measure(side, one))
    sampled = sum(map(sum, lengths))
    speeds = {side: sampled / min(run["seconds"] for run in found) for side, found in runs.items()}
    return {
        "dtype": dtype,
        "groups": name,
        "sampled_tokens": sampled,
        "tokens_per_second": speeds,
        "ratio": speeds["ours"] / speeds["trl"],
        "cpu_ratio": min(r["cpu_seconds"] for r in runs["trl"]) / min(r["cpu_seconds"] for r in runs["ours"]),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
