"""One update of a Qwen2-1.5B on a GPU: peak memory, tokens a second and model FLOP utilisation, beside TRL.

Random weights, 72 sequences of up to 3,584 tokens, bf16, gradient checkpointing. The machine needs torch, transformers,
accelerate and peft; what else the two sides import is installed from a folder of wheels:

    pip download --only-binary :all: --no-deps --dest wheels trl==1.16.0 datasets pydantic pydantic-core ...
    python benchmarks/gpu_learner.py --wheels wheels --json gpu.json
    python benchmarks/gpu_learner.py --dry-run          # a toy model on the CPU: shows that everything runs
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from learner_sides import Job, ensure_rival, log_normal_lengths, make_model, measure

QWEN2_1_5B = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
TOY = QWEN2_1_5B | {"vocab_size": 2048, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
# Dense bf16 FLOP/s without sparsity, from the vendor's data sheets.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A40": 149.7e12, "L40S": 362e12, "L4": 121e12}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install for both sides")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--sides", nargs="+", default=["ours", "ours, 8 bit", "trl"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        packages = install(arguments.wheels, Path(directory) / "packages") if arguments.wheels else None
        if packages is None and "trl" in arguments.sides:
            ensure_rival()
        result = compare(Path(directory) / "model", arguments.dry_run, arguments.sides, packages)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    for name, side in result.items():
        utilisation = "unknown" if side["utilisation"] is None else f"{side['utilisation']:.1%}"
        print(
            f"{name:12} peak {side['peak_bytes'] / 2**30:6.2f} GiB above the weights  {side['tokens_per_second']:8.0f} "
            f"tokens/s  {side['seconds']:6.1f} s  utilisation {utilisation}  on {side['device']}"
        )
    if "ours" in result and "trl" in result:
        ratio = result["ours"]["tokens_per_second"] / result["trl"]["tokens_per_second"]
        memory = result["ours"]["peak_bytes"] / result["trl"]["peak_bytes"]
        print(f"figure: {ratio:.2f} x TRL's tokens per second, in {memory:.2f} of its peak memory")


def install(wheels: Path, target: Path) -> Path:
    """Unpack every wheel of a folder; nothing is fetched."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*command, *map(str, sorted(wheels.glob("*.whl")))], check=True)
    return target


def compare(directory: Path, dry_run: bool, names: list[str], packages: Path | None) -> dict[str, dict[str, Any]]:
    """Run each side once, after a warm-up update of its own."""
    sizes = TOY if dry_run else QWEN2_1_5B
    make_model(directory, **sizes)
    lengths = log_normal_lengths(groups=12, generations=6, limit=64 if dry_run else 3584)
    job = Job(
        model=str(directory),
        lengths=lengths,
        prompt_tokens=16 if dry_run else 256,
        dtype="bfloat16",
        learning_rate=1e-6,
        updates=2,
        gradient_checkpointing=True,
        tokens_per_micro_batch=512 if dry_run else 16_384,
        rows_per_micro_batch=6,
    )
    jobs = {
        "ours": ("ours", job),
        "ours, 8 bit": ("ours", replace(job, options={"optimizer": {"name": "adamw_8bit"}})),
        "trl": ("trl", job),
    }
    return {name: describe(measure(*jobs[name], packages=packages), job, sizes) for name in names}


def describe(run: dict[str, Any], job: Job, sizes: dict[str, int]) -> dict[str, Any]:
    """Speeds count prompt and completion tokens without padding, and no recomputation."""
    totals = [job.prompt_tokens + length for row in job.lengths for length in row]
    speed = sum(totals) / run["seconds"]
    width = sizes["hidden_size"] * sizes["num_hidden_layers"]
    flops = sum(6 * run["weights"] * length + 6 * width * length * length for length in totals)
    peak = next((peak for name, peak in PEAK_FLOPS.items() if name in run["device"]), None)
    utilisation = None if peak is None else flops / run["seconds"] / peak
    return {**run, "tokens_per_second": speed, "utilisation": utilisation}


if __name__ == "__main__":
    main()
