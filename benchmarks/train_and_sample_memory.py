"""Claim: training and sampling in one process peak at no more than the learner alone plus the cache that was asked for.

A Qwen2 of 47 M parameters in float32; the same update on 16 sequences of 320 tokens (a micro-batch and a bit, more rows
change nothing), first alone, then after sampling 64 sequences with the local engine in the same process. Peaks are
those of the resident set (Linux) or of the GPU's allocator.

    python benchmarks/train_and_sample_memory.py --json memory.json
    figure: X      peak of both / (peak of the learner alone + the cache); at most 1
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from learner_sides import make_model
from open_rs.config.schema import AlgorithmConfig, ModelConfig, OptimizerConfig, TrainConfig
from open_rs.prompts import Prompt
from open_rs.rollout import Request, Sampling
from open_rs.rollout.attention import cache_shape
from open_rs.rollout.cache import SlotCache
from open_rs.rollout.decode import kernels_of
from open_rs.rollout.local import LocalEngine
from open_rs.train.batch import Batch, build_batch
from open_rs.train.policy import Policy
from open_rs.types import Group, Problem, Rollout, Score, Verdict

NUM_PROMPTS, NUM_SAMPLES, PROMPT_TOKENS, MAX_TOKENS = 8, 8, 64, 256
NUM_TRAINED = 2  # prompts in the update
SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


def recorded_batch(algorithm: AlgorithmConfig) -> Batch:
    """Random words with every other sequence right."""
    groups, scores = [], []
    for number in range(NUM_TRAINED):
        words = torch.randint(2, SIZES["vocab_size"], (NUM_SAMPLES, PROMPT_TOKENS + MAX_TOKENS)).tolist()
        rollouts = tuple(
            Rollout(str(number), g, tuple(row[:PROMPT_TOKENS]), tuple(row[PROMPT_TOKENS:]), None, "", "length", 0)
            for g, row in enumerate(words)
        )
        verdicts = tuple(Verdict(g % 2 == 0, None, "") for g in range(NUM_SAMPLES))
        groups.append(Group(Problem(str(number), "", "", ""), rollouts, verdicts))
        scores.append([Score(float(g % 2), {}) for g in range(NUM_SAMPLES)])
    return build_batch(groups, scores, algorithm, max_completion_length=MAX_TOKENS)


def sample(engine: LocalEngine, policy: Policy) -> int:
    """One step's sampling; returns the bytes of the cache that it asked for."""
    words = torch.randint(2, SIZES["vocab_size"], (NUM_PROMPTS, PROMPT_TOKENS)).tolist()
    requests = [Request(Prompt(str(i), (), "", tuple(row)), tuple(range(NUM_SAMPLES))) for i, row in enumerate(words)]
    with engine.awake():
        engine.load(policy.model, 0)
        for _ in engine.generate(requests, Sampling(max_tokens=MAX_TOKENS)):
            pass
        slots = engine.cache_slots
    shape = cache_shape(policy.model, kernels_of(policy.model))
    tokens = SlotCache(shape, 1, PROMPT_TOKENS + MAX_TOKENS, torch.device("meta")).slot_tokens
    return slots * tokens * shape.bytes_per_token


def peak_of(work: Callable[[], Any]) -> int:
    """The highest memory in use, in bytes, while `work` runs; what was in use before is part of it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    work()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    algorithm = AlgorithmConfig(sampler_correction_cap=None)
    with tempfile.TemporaryDirectory() as directory:
        make_model(Path(directory), **SIZES, max_position_embeddings=2048)
        train = TrainConfig(prompts_per_step=NUM_TRAINED, tokens_per_micro_batch=4096)
        model = ModelConfig(name_or_path=directory, dtype="float32")
        policy = Policy.build(model, OptimizerConfig(), algorithm, train, temperature=1.0)
    batch, engine, cache = recorded_batch(algorithm), LocalEngine(), 0
    policy.update(batch, 1e-6)  # the optimiser's state exists from now on
    alone = peak_of(lambda: policy.update(batch, 1e-6))

    def both() -> None:
        nonlocal cache
        cache = sample(engine, policy)
        policy.update(batch, 1e-6)

    together = peak_of(both)
    mebi = 2**20
    result = {"learner_bytes": alone, "cache_bytes": cache, "together_bytes": together}
    print(f"learner {alone / mebi:.0f} MiB, cache {cache / mebi:.0f} MiB, both {together / mebi:.0f} MiB")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    print(f"figure: {together / (alone + cache):.2f}")


if __name__ == "__main__":
    main()
