"""Claim: on one GPU the local engine comes near the memory bandwidth, and beats both ways of `transformers` to sample.

Random weights of Qwen2-1.5B's shape in bfloat16, 6 samples a prompt of 128 tokens, every completion `--max-tokens`
long, one run, the sides one after another on the same weights. It needs no data set and no grader.

    python benchmarks/gpu_rollout.py --json gpu_rollout.json
    figure: A B      local over the faster of transformers' two, at 72 and at 288 sequences
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from open_rs.models import CausalLM
from open_rs.prompts import Prompt
from open_rs.rollout import Request, Sampling
from open_rs.rollout.local import LocalEngine

SAMPLES, PROMPT_TOKENS = 6, 128
SHAPES = {
    "qwen2-1.5b": {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


class NoText:
    """A tokenizer that is not asked for text."""

    def decode(self, *_: object, **__: object) -> str:
        return ""


def build_module(shape: str, device: str) -> Any:
    """Random weights; no word stops a completion, so every side samples the same number of tokens."""
    torch.manual_seed(0)
    config = Qwen2Config(
        **SHAPES[shape], max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None
    )
    with torch.device(device):
        return Qwen2ForCausalLM(config).to(torch.bfloat16).eval()


def prompts_for(num_sequences: int, vocabulary: int) -> list[list[int]]:
    """One prompt for each `SAMPLES` sequences."""
    generator = torch.Generator().manual_seed(1)
    shape = (num_sequences // SAMPLES, PROMPT_TOKENS)
    return torch.randint(0, vocabulary, shape, generator=generator).tolist()


def sample_locally(module: Any, prompts: list[list[int]], max_tokens: int) -> int:
    """The local engine, cache and captured graphs built inside the timing."""
    weight = next(module.parameters())
    model = CausalLM(module, NoText(), "", weight.device, weight.dtype, frozenset(), 8192)  # pyright: ignore
    engine = LocalEngine(max_concurrent=len(prompts) * SAMPLES)
    engine.load(model, 0)
    requests = [Request(Prompt(f"p{i}", (), "", tuple(row)), tuple(range(SAMPLES))) for i, row in enumerate(prompts)]
    return sum(len(rollout.tokens) for rollout in engine.generate(requests, Sampling(max_tokens=max_tokens)))


def sample_with_generate(module: Any, prompts: list[list[int]], max_tokens: int) -> int:
    """`generate`: one batch, dynamic cache."""
    tokens = torch.tensor(prompts, device=module.device)
    out = module.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        top_k=0,
        num_return_sequences=SAMPLES,
        max_new_tokens=max_tokens,
        pad_token_id=0,
    )
    return int(out[:, PROMPT_TOKENS:].numel())


def sample_with_continuous_batching(module: Any, prompts: list[list[int]], max_tokens: int) -> int:
    """`generate_batch`: transformers' paged, continuous batching."""
    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=max_tokens, eos_token_id=-1, pad_token_id=0)
    inputs = [row for row in prompts for _ in range(SAMPLES)]
    outputs = module.generate_batch(inputs=inputs, generation_config=config, progress_bar=False)
    return sum(len(output.generated_tokens) for output in outputs.values())


def measure_bandwidth(device: str) -> float:
    """Bytes a second of a long read."""
    block = torch.ones((2**30 if device == "cuda" else 2**26,), dtype=torch.bfloat16, device=device)
    best = float("inf")
    for _ in range(10):
        seconds, _ = timed(lambda: int(block.view(torch.int16).amax()))
        best = min(best, seconds)
    return block.numel() * 2 / best


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """Seconds until the device is idle again, and what `work` returned."""
    synchronise()
    start = time.perf_counter()
    result = work()
    synchronise()
    return time.perf_counter() - start, result


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def limit_tokens_per_second(shape: str, num_sequences: int, max_tokens: int, bandwidth: float) -> float:
    """Each step reads all weights once and each sequence's cache once, and nothing else takes time."""
    size = SHAPES[shape]
    hidden, layers = size["hidden_size"], size["num_hidden_layers"]
    kv = 2 * size["num_key_value_heads"] * hidden // size["num_attention_heads"]
    weights = layers * hidden * (2 * hidden + kv + 3 * size["intermediate_size"]) + size["vocab_size"] * hidden
    cached = num_sequences * layers * kv * (PROMPT_TOKENS + max_tokens / 2)  # on average over the steps
    return num_sequences * bandwidth / (2 * (weights + cached))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shape", default="qwen2-1.5b", choices=list(SHAPES))
    parser.add_argument("--sequences", type=int, nargs="+", default=[72, 288])
    parser.add_argument("--max-tokens", type=int, default=3584)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    arguments = parser.parse_args()
    module = build_module(arguments.shape, arguments.device)
    bandwidth = measure_bandwidth(arguments.device)
    results = []
    for num_sequences in arguments.sequences:
        prompts = prompts_for(num_sequences, SHAPES[arguments.shape]["vocab_size"])
        limit = limit_tokens_per_second(arguments.shape, num_sequences, arguments.max_tokens, bandwidth)
        for name in arguments.sides:
            SIDES[name](module, prompts, 8)  # warm-up
            seconds, tokens = timed(lambda side=SIDES[name], rows=prompts: side(module, rows, arguments.max_tokens))
            rate = tokens / seconds
            results.append({"sequences": num_sequences, "side": name, "tokens_per_second": rate, "limit": limit})
            print(
                f"{num_sequences:4} sequences, {name:>20}: {rate:8.0f} tokens/s, {rate / limit:.0%} of the limit "
                f"{limit:.0f} at {bandwidth / 1e9:.0f} GB/s",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    print("figure:", *(f"{ratio(results, number):.2f}" for number in arguments.sequences))


def ratio(results: list[dict[str, Any]], num_sequences: int) -> float:
    """Local over the best rival that ran."""
    rates = {row["side"]: row["tokens_per_second"] for row in results if row["sequences"] == num_sequences}
    return rates["local"] / max((rate for name, rate in rates.items() if name != "local"), default=float("nan"))


SIDES = {
    "local": sample_locally,
    "generate": sample_with_generate,
    "continuous batching": sample_with_continuous_batching,
}

if __name__ == "__main__":
    main()
