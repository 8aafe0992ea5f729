"""Claim: `open-rs evaluate` asks the paper's five benchmarks of a small model end to end, and loses nothing.

Two models through the local engine, each in one command: the embedded one, with a limit of its own, and a random Qwen2
of two layers that answers up to the end of its context. The problems are real and lie in DIR.

    python benchmarks/evaluate_engines.py --data ../shared/data/benchmarks --json engines.json
    figure: X      of the 10 pairs of model and benchmark, those that hold every problem once and an interval
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCHMARKS = ("aime24", "math_500", "amc23", "minerva", "olympiadbench")
EMBEDDED, EMBEDDED_MAX_TOKENS = "open-rs-tiny", 192  # it reads digits; of this it makes nonsense of any length
RANDOM_CONTEXT = 2048  # tokens; the longest prompts of the five have about 1,000 of its one-letter tokens


def save_random_qwen2(directory: Path) -> Path:
    """A random Qwen2, 2 layers and 64 wide, with the embedded model's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    from open_rs.models import embedded_model_directory

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_directory())
    config = Qwen2Config.from_pretrained(embedded_model_directory())
    config.update({"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2, "hidden_size": 64})
    config.update({"intermediate_size": 128, "max_position_embeddings": RANDOM_CONTEXT})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def evaluate(model: str, data: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """Run the command; returns its `results.json`, with the seconds it took."""
    words = [*("evaluate", model, "--benchmarks", ",".join(BENCHMARKS)), *("--data", str(data), "--out", str(out))]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "open_rs", *words, *options, "--json"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "results.json").read_text()) | {"seconds": time.perf_counter() - started}


def completions(out: Path) -> dict[str, Counter[str]]:
    """How often each problem stands in the log, by benchmark."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in BENCHMARKS}
    with (out / "completions.jsonl").open(encoding="utf-8") as file:  # `splitlines` would also split at U+2028
        for row in map(json.loads, file):
            counts[row["benchmark"]][row["problem_id"]] += 1
    return counts


def report(name: str, result: dict[str, Any], counts: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """Print a line a benchmark; returns them as rows."""
    limit = result["fingerprint"]["protocol"]["max_tokens"]
    tokens = sum(part["diagnostics"]["tokens"]["total"] for part in result["benchmarks"].values())
    print(f"\n{name}: limit {limit:,} tokens, {tokens:,} sampled, {result['seconds']:.0f} s")
    for warning in result["warnings"]:
        print(f"  {warning}")
    rows = []
    for benchmark, part in result["benchmarks"].items():
        low, high = part["ci95"]
        signs, asked = part["diagnostics"], counts[benchmark]
        whole = set(asked.values()) == {1} and set(asked) <= {*part["samples"], *part["left_out"]} and high > low
        print(
            f"  {benchmark:14} {len(asked):4} problems  {100 * part['avg']:4.1f} % ({100 * low:.1f} to "
            f"{100 * high:.1f})  {signs['tokens']['mean']:6.0f} tokens, {100 * signs['truncated']:5.1f} % truncated  "
            f"{'whole' if whole else 'NOT WHOLE'}"
        )
        rows.append({"model": name, "benchmark": benchmark, "problems": len(asked), "limit": limit, "whole": whole})
    return rows


MODELS: dict[str, Callable[[Path], tuple[str, list[str]]]] = {  # where to write one -> (its name, options)
    "random": lambda place: (str(save_random_qwen2(place)), []),
    "embedded": lambda place: (EMBEDDED, ["--max-tokens", str(EMBEDDED_MAX_TOKENS)]),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with local copies of the benchmarks")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--limit", type=int, help="only the first problems of each benchmark")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"skipped: {arguments.data} is absent; give the folder with aime24.jsonl, math500.jsonl, ...")
    shared = ["--samples", "1"] + (["--limit", str(arguments.limit)] if arguments.limit else [])
    found = []
    for kind in arguments.models:
        with tempfile.TemporaryDirectory() as place:
            name, options = MODELS[kind](Path(place) / "random-qwen2")
            out = Path(place) / "results"
            result = evaluate(name, arguments.data, out, [*shared, *options])
            found += report(kind, result, completions(out))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    print(f"figure: {sum(row['whole'] for row in found)}")
