"""The memory plan adds up, reacts to the settings that save memory, and agrees with what a process really takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from open_rs.config.load import load_recipe
from open_rs.models import load_model
from open_rs.train.memory import R1_DISTILL_QWEN_1_5B, MemoryPlan, Shape, load_shape, micro_batch_tokens, plan_memory

REPOSITORY = Path(__file__).parents[2]
CUDA = torch.device("cuda")
SHAPE = Shape.of(R1_DISTILL_QWEN_1_5B)


def plan(*overrides: str) -> MemoryPlan:
    return plan_memory(load_recipe("open-rs3", ["model.device=cuda", *overrides]), SHAPE, CUDA)


def test_the_shape_counts_the_weights_of_the_loaded_model() -> None:
    recipe = load_recipe("demo", ["model.device=cpu"])
    module = load_model(recipe.model).base
    assert load_shape(recipe.model).parameters == sum(parameter.numel() for parameter in module.parameters())


def test_tied_embeddings_count_once() -> None:
    widths = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 1000}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    sizes = [Shape.of(Qwen2Config(**widths, **heads, tie_word_embeddings=tied)).parameters for tied in (True, False)]
    assert sizes[1] - sizes[0] == 32 * 1000


SAVINGS = {
    "8-bit states": ("optimizer.name=adamw_8bit", "optimizer"),
    "adapter": ("model.lora={rank: 32}", "gradients"),
    "no reference": ("algorithm.beta=0", "reference"),
    "smaller micro-batches": ("train.tokens_per_micro_batch=4096", "activations"),
}


@pytest.mark.parametrize(("override", "item"), SAVINGS.values(), ids=SAVINGS)
def test_a_setting_that_saves_memory_shrinks_its_item(override: str, item: str) -> None:
    before, after = plan().updating, plan(override).updating
    assert after[item] < before[item] or before[item] == after[item] == 0
    assert sum(after.values()) < sum(before.values())


def test_fewer_sequences_side_by_side_shrink_the_cache() -> None:
    assert plan("rollout.max_concurrent=8").sampling["cache"] * 8 == plan("rollout.max_concurrent=64").sampling["cache"]


def test_checkpointing_saves_most_of_the_activations() -> None:
    kept = plan("train.gradient_checkpointing=false").updating["activations"]
    assert plan().updating["activations"] < 0.1 * kept


def test_a_row_longer_than_the_token_budget_is_a_micro_batch_of_its_own() -> None:
    recipe = load_recipe("open-rs3", ["train.tokens_per_micro_batch=100"])
    assert micro_batch_tokens(recipe, SHAPE) == 512 + 3584


@pytest.mark.slow
def test_the_plan_is_within_15_percent_of_the_measured_peak(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "memory_plan.py"), "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert {row["case"]: row["ratio"] for row in json.loads(out.read_text()) if abs(row["ratio"] - 1) > 0.15} == {}
