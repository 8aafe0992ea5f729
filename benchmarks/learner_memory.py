"""Peak memory and time of one update with a large vocabulary, against TRL and against the floor.

A 27 M-parameter Qwen2 (4 layers, 160 wide, 151,936 words) and 8 sequences of 2,048 tokens, fp32, on the CPU. TRL runs
with all 8 sequences at once and again one by one, and the better of the two counts, for memory and for time separately.

    python benchmarks/learner_memory.py --json memory.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from learner_sides import Job, ensure_rival, make_model, measure

SIZES = {
    "vocab_size": 151_936,
    "hidden_size": 160,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 4096,
}
SEQUENCES, TOKENS, PROMPT = 8, 2048, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    ensure_rival()
    with tempfile.TemporaryDirectory() as directory:
        result = compare(Path(directory), arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    times = f"{result['time_ratio']:.2f} of its time ({result['cpu_time_ratio']:.2f} of its processor time)"
    print(f"figure: {result['memory_ratio']:.3f} of TRL's peak memory, in {times}")


def compare(directory: Path, rounds: int) -> dict[str, Any]:
    """Alternate the sides; the least of each side's times and its greatest peak count."""
    make_model(directory, **SIZES)
    lengths = [[TOKENS - PROMPT] * 4] * (SEQUENCES // 4)
    job = Job(model=str(directory), lengths=lengths, prompt_tokens=PROMPT)
    jobs = {
        "ours": ("ours", replace(job, weights_out=str(directory / "ours.pt"))),
        "trl, 8 rows at a time": ("trl", replace(job, weights_out=str(directory / "trl.pt"))),
        "trl, 1 row at a time": ("trl", replace(job, rows_per_micro_batch=1)),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (side, one) in jobs.items():
            runs[name].append(measure(side, one))
    best = {
        name: {
            "seconds": min(run["seconds"] for run in found),
            "cpu_seconds": min(run["cpu_seconds"] for run in found),
            "peak_bytes": max(run["peak_bytes"] for run in found),
            "loss": found[0]["updates"][0]["loss"],
            "grad_norm": found[0]["updates"][0]["grad_norm"],
        }
        for name, found in runs.items()
    }
    rivals = [sides for name, sides in best.items() if name != "ours"]
    floors = floor(runs["ours"][0]["weights"])
    return {
        "sides": best,
        "floor_bytes": floors,
        "memory_ratio": best["ours"]["peak_bytes"] / min(rival["peak_bytes"] for rival in rivals),
        "time_ratio": best["ours"]["seconds"] / min(rival["seconds"] for rival in rivals),
        "cpu_time_ratio": best["ours"]["cpu_seconds"] / min(rival["cpu_seconds"] for rival in rivals),
        "distance_between_results": distance(directory / "ours.pt", directory / "trl.pt", runs["ours"][0]["moved"]),
        "runs": runs,
    }


def floor(weights: int) -> dict[str, int]:
    """Bytes that any AdamW in fp32 needs above the loaded weights, with one sequence's activations kept."""
    head_size = SIZES["hidden_size"] // SIZES["num_attention_heads"]
    kv = SIZES["num_key_value_heads"] * head_size
    # A layer keeps: its input, the normed input, q, k, v (rotated), the attention's output, the second residual, its
    # normed form, and three MLP vectors.
    per_token = SIZES["num_hidden_layers"] * (6 * SIZES["hidden_size"] + 2 * kv + 3 * SIZES["intermediate_size"])
    return {"gradients": 4 * weights, "optimizer_states": 8 * weights, "activations": 4 * per_token * TOKENS}


def distance(ours: Path, theirs: Path, moved: float) -> float:
    """Distance between the two sides' weights after the update, in units of the distance that they moved."""
    import torch

    left, right = torch.load(ours), torch.load(theirs)
    return float((left - right).norm() / right.norm() / moved)


def table(result: dict[str, Any]) -> str:
    total = sum(result["floor_bytes"].values())
    rows = []
    for name, side in result["sides"].items():
        size, times = side["peak_bytes"], f"{side['seconds']:6.1f} s ({side['cpu_seconds']:.1f} s of processors)"
        rows.append(f"{name:24} {size / 2**20:8.0f} MiB  {size / total:5.2f} x floor  {times}")
    parts = ", ".join(f"{name} {value / 2**20:.0f}" for name, value in result["floor_bytes"].items())
    between = f"distance between the results: {result['distance_between_results']:.1e} of the distance moved"
    return "\n".join([*rows, f"{'floor':24} {total / 2**20:8.0f} MiB  ({parts})", between])


if __name__ == "__main__":
    main()
