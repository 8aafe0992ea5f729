"""The doctor's memory plan beside the measured peak of two updates: full, 8-bit and LoRA at three sizes, on a CPU.

Each case runs in a fork, after a warm-up that maps the libraries, under an allocator that gives freed memory back
(`MALLOC_MMAP_THRESHOLD_`); without that, glibc keeps freed blocks and the resident size says little about what is held.
`figure:` is the largest deviation from the measured peak, as a fraction.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # read by the C library when a process starts
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from open_rs.config.schema import (
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    PromptConfig,
    Recipe,
    RolloutConfig,
    TrainConfig,
)
from open_rs.models import wrap
from open_rs.train.batch import Batch
from open_rs.train.memory import Shape, plan_memory
from open_rs.train.policy import Policy

ROW_TOKENS, PROMPT_TOKENS, ROWS = 512, 64, 8
SIZES: dict[str, dict[str, int]] = {
    "4M": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 8_000,
    },
    "20M": {
        "hidden_size": 320,
        "intermediate_size": 1280,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "vocab_size": 16_000,
    },
    "60M": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "vocab_size": 24_000,
    },
}
WARM_UP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2} | {
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
KEY_HEADS = {"4M": 2, "20M": 5, "60M": 2}
MODES: dict[str, tuple[LoraConfig | None, str]] = {
    "full": (None, "adamw"),
    "8-bit": (None, "adamw_8bit"),
    "LoRA": (LoraConfig(rank=16), "adamw"),
}


class NoTokenizer:
    """Stands where a model wants its tokenizer."""

    eos_token_id = 1
    model_max_length = 4096


def build_recipe(mode: str, dtype: str, checkpointing: bool) -> Recipe:
    lora, optimizer = MODES[mode]
    return Recipe(
        model=ModelConfig(dtype=dtype, device="cpu", lora=lora),  # pyright: ignore[reportArgumentType]
        optimizer=OptimizerConfig(name=optimizer, learning_rate=1e-4),  # pyright: ignore[reportArgumentType]
        train=TrainConfig(
            prompts_per_step=2, tokens_per_micro_batch=4 * ROW_TOKENS, gradient_checkpointing=checkpointing
        ),
        rollout=RolloutConfig(num_generations=ROWS // 2, max_completion_length=ROW_TOKENS - PROMPT_TOKENS),
        prompt=PromptConfig(max_prompt_length=PROMPT_TOKENS),
    )


def build_config(size: str) -> Qwen2Config:
    widths = SIZES[size] | {"num_key_value_heads": KEY_HEADS[size]}
    return Qwen2Config(**widths, max_position_embeddings=4096, tie_word_embeddings=False)


def build_policy(config: Qwen2Config, recipe: Recipe) -> Policy:
    module = Qwen2ForCausalLM(config).to(getattr(torch, recipe.model.dtype)).eval()
    if recipe.model.lora is not None:
        adapter = PeftLoraConfig(r=recipe.model.lora.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        module = get_peft_model(module, adapter)
    model = wrap(module, NoTokenizer(), "random")  # pyright: ignore[reportArgumentType]
    return Policy(model, recipe.optimizer, recipe.algorithm, recipe.train, temperature=1.0)


def build_batch(vocabulary: int, rows: int, width: int) -> Batch:
    trained = torch.zeros(rows, width, dtype=torch.bool)
    trained[:, min(PROMPT_TOKENS, width // 2) :] = True
    return Batch(
        tokens=torch.randint(0, vocabulary, (rows, width)),
        trained=trained,
        sampler_logprobs=torch.full((rows, width), -5.0),
        reference_logprobs=None,
        lengths=torch.full((rows,), width),
        advantages=torch.randn(rows),
        weights=torch.full((rows,), 1e-4),
        counts={},
    )


def measure(size: str, mode: str, dtype: str, checkpointing: bool) -> dict[str, Any]:
    """Plan and peak in bytes."""
    config, recipe = build_config(size), build_recipe(mode, dtype, checkpointing)
    plan = plan_memory(recipe, Shape.of(config), torch.device("cpu"))
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, str(_peak(config, recipe)).encode())
        os._exit(0)
    os.close(writing)
    peak = int(os.read(reading, 100))
    os.wait()
    planned = sum(plan.updating.values())
    name = f"{size} {mode} {dtype}" + (" checkpointed" if checkpointing else "")
    return {"case": name, "planned": planned, "measured": peak, "ratio": planned / peak, "items": dict(plan.updating)}


def _peak(config: Qwen2Config, recipe: Recipe) -> int:
    """Growth of the resident size over two updates, the model's own weights included."""
    small = Qwen2Config(**WARM_UP)
    build_policy(small, recipe).update(build_batch(64, 4, 64), 1e-4)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    policy, batch = build_policy(config, recipe), build_batch(config.vocab_size, ROWS, ROW_TOKENS)
    policy.update(batch, 1e-4)
    policy.update(batch, 1e-4)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        (size, mode, "float32", False) for size in arguments.sizes.split(",") for mode in arguments.modes.split(",")
    ]
    results = []
    for case in cases:
        result = measure(*case)
        results.append(result)
        planned, peak = result["planned"] / 2**20, result["measured"] / 2**20
        print(
            f"{result['case']:28} plan {planned:7.0f} MiB  measured {peak:7.0f} MiB  ratio {result['ratio']:.3f}",
            flush=True,
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2))
    print(f"figure: {max(abs(result['ratio'] - 1) for result in results):.3f} largest deviation of the plan")


if __name__ == "__main__":
    main()
