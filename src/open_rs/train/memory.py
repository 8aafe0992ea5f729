"""What a recipe will hold in memory, item by item, from the model's shape alone: no weights are loaded.

Two moments count: sampling (weights, optimiser, cache) and updating (weights, optimiser, gradients, activations of one
micro-batch, and as scratch either one tile of logits or one layer on its way back). The larger is the peak, since the
cache is gone while weights are updated. Formulas are those of Qwen2, Qwen3 and Llama layers as transformers computes
them with fused attention. What an allocator keeps of freed memory comes on top.
Legend: `t` tokens of a micro-batch, `H` model width, `I` inner width, `Q` and `K` widths of all query and key heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from open_rs.config.schema import LoraConfig, ModelConfig, Recipe
from open_rs.models import EMBEDDED_MODEL, embedded_model_directory, resolve_device, resolve_dtype
from open_rs.train.head import TILE_BYTES
from open_rs.types import UserError

MASTER_BYTES = 2  # a bf16 weight's fp32 master needs 16 bits more (see optimizer.py)
GRADIENT_BYTES = 4  # gradients add up in fp32
MOMENT_BYTES = {"adamw": 8.0, "adamw_8bit": 2 + 8 / 256}  # two moments; in 8 bit two fp32 scales a block of 256
GIBIBYTE = 2**30
R1_DISTILL_QWEN_1_5B = Qwen2Config(  # the widths of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
    vocab_size=151_936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    max_position_embeddings=131_072,
    tie_word_embeddings=False,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The widths of a decoder and how many weights it has."""

    parameters: int
    linear_sizes: tuple[tuple[str, int, int], ...]  # (name, inputs, outputs) of each linear layer but the output head
    layers: int
    hidden: int
    inner: int
    query_width: int
    key_width: int
    vocabulary: int
    context_length: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Count the weights of a transformers config on the meta device, where they take no memory."""
        with torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
        text = config.get_text_config()
        head = module.get_output_embeddings()
        linear = [
            (name, layer.in_features, layer.out_features)
            for name, layer in module.named_modules()
            if isinstance(layer, torch.nn.Linear) and layer is not head
        ]
        head_width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            linear_sizes=tuple(linear),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            inner=text.intermediate_size,
            query_width=text.num_attention_heads * head_width,
            key_width=text.num_key_value_heads * head_width,
            vocabulary=text.vocab_size,
            context_length=text.max_position_embeddings,
        )

    def adapter_parameters(self, lora: LoraConfig) -> int:
        """Weights of the low-rank matrices: rank times inputs and outputs of every adapted layer."""
        adapted = [inputs + outputs for name, inputs, outputs in self.linear_sizes if _adapted(name, lora)]
        return lora.rank * sum(adapted)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes by item at the two moments; `peak` is the larger sum."""

    updating: Mapping[str, int]
    sampling: Mapping[str, int]

    @property
    def peak(self) -> int:
        return max(sum(self.updating.values()), sum(self.sampling.values()))

    @property
    def peak_at(self) -> str:
        return "updating" if sum(self.updating.values()) >= sum(self.sampling.values()) else "sampling"


def load_shape(model: ModelConfig) -> Shape:
    """The shape of the model that a recipe names; reads its config only."""
    place = str(embedded_model_directory()) if model.name_or_path == EMBEDDED_MODEL else model.name_or_path
    try:
        config = AutoConfig.from_pretrained(place, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name_or_path: can't read the config of `{model.name_or_path}` ({error})") from error
    return Shape.of(config)


def plan_memory(recipe: Recipe, shape: Shape, device: torch.device | None = None) -> MemoryPlan:
    """Items and their bytes for one process. `device` is the recipe's own where it is absent."""
    device = resolve_device(recipe.model.device) if device is None else device
    dtype = resolve_dtype(recipe.model.dtype, device)
    lora = recipe.model.lora
    trainable = shape.parameters if lora is None else shape.adapter_parameters(lora)
    stored = dtype.itemsize if lora is None else 4  # PEFT keeps adapters in fp32
    states = {
        "weights": shape.parameters * dtype.itemsize + (0 if lora is None else trainable * stored),
        "masters": trainable * MASTER_BYTES if stored == 2 else 0,
        "optimizer": int(trainable * MOMENT_BYTES[recipe.optimizer.name]),
        "reference": shape.parameters * dtype.itemsize if recipe.algorithm.beta > 0 and lora is None else 0,
    }
    tokens = micro_batch_tokens(recipe, shape)
    updating = {
        "gradients": trainable * GRADIENT_BYTES,
        "activations": saved_bytes(recipe, shape, dtype, tokens),
        "scratch": max(
            logits_bytes(recipe, shape, dtype, device, tokens), backward_bytes(recipe, shape, dtype, tokens)
        ),
    }
    sampling = {
        "cache": cache_bytes(recipe, shape, dtype),
        "packed weights": shape.parameters * dtype.itemsize if device.type == "cpu" else 0,
    }
    return MemoryPlan(updating=states | updating, sampling=states | sampling)


def micro_batch_tokens(recipe: Recipe, shape: Shape) -> int:
    """Tokens of the fullest micro-batch: the budget, or one row if that is longer than the budget."""
    row = min(recipe.prompt.max_prompt_length + recipe.rollout.max_completion_length, shape.context_length)
    rows = recipe.train.prompts_per_step * recipe.rollout.num_generations
    return min(max(recipe.train.tokens_per_micro_batch // row, 1), rows) * row


def saved_bytes(recipe: Recipe, shape: Shape, dtype: torch.dtype, tokens: int) -> int:
    """What the layers keep for the backward pass: with checkpointing each its input, else all that it computed."""
    if recipe.train.gradient_checkpointing:
        return tokens * shape.layers * shape.hidden * dtype.itemsize
    return tokens * shape.layers * layer_bytes_per_token(recipe.model.lora, shape, dtype)


def backward_bytes(recipe: Recipe, shape: Shape, dtype: torch.dtype, tokens: int) -> int:
    """Gradients of gate, up and their product, alive together; with checkpointing a recomputed layer besides."""
    layer = layer_bytes_per_token(recipe.model.lora, shape, dtype) if recipe.train.gradient_checkpointing else 0
    return tokens * (layer + 3 * shape.inner * dtype.itemsize)


def layer_bytes_per_token(lora: LoraConfig | None, shape: Shape, dtype: torch.dtype) -> int:
    """Saved for one token in one layer: `norm inputs, norms, q, k, v, attention twice, gate, its silu, up, product`."""
    size, wide = dtype.itemsize, 4
    norm_inputs = 2 * shape.hidden * wide  # kept in fp32, whatever the weights are
    saved = 2 * shape.hidden + 3 * shape.query_width + 2 * shape.key_width + 4 * shape.inner
    casts = 0
    if lora is not None and size < wide:
        casts = wide * sum(inputs for name, inputs, _ in shape.linear_sizes if _adapted(name, lora)) // shape.layers
    return norm_inputs + saved * size + casts


def logits_bytes(recipe: Recipe, shape: Shape, dtype: torch.dtype, device: torch.device, tokens: int) -> int:
    """One tile of logits and its copy in the working type, and the hidden states with their gradient."""
    wide = 4 if device.type == "cuda" else dtype.itemsize
    rows = max(1, min(recipe.train.logprob_chunk_tokens, TILE_BYTES // (shape.vocabulary * wide), tokens))
    tile = rows * shape.vocabulary * (wide + (dtype.itemsize if wide != dtype.itemsize else 0))
    head_is_frozen = recipe.model.lora is not None
    product = shape.vocabulary * shape.hidden * dtype.itemsize if wide < 4 and not head_is_frozen else 0
    return tile + product + 3 * tokens * shape.hidden * dtype.itemsize


def cache_bytes(recipe: Recipe, shape: Shape, dtype: torch.dtype) -> int:
    """Keys and values of as many sequences as are decoded side by side."""
    rollout = recipe.rollout
    per_token = 2 * shape.layers * shape.key_width * dtype.itemsize
    row = min(recipe.prompt.max_prompt_length + rollout.max_completion_length, shape.context_length)
    rows = min(rollout.max_concurrent, recipe.train.prompts_per_step * rollout.num_generations)
    return per_token * (rows * row if rollout.cache_tokens is None else min(rollout.cache_tokens, rows * row))


def available_bytes(model: ModelConfig) -> int:
    """Memory that is free on the recipe's device now."""
    device = resolve_device(model.device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def show_bytes(number: float) -> str:
    """`1610612736` is `1.50 GiB`, and `1048576` is `1.0 MiB`."""
    return f"{number / GIBIBYTE:.2f} GiB" if number >= GIBIBYTE / 10 else f"{number / 2**20:.1f} MiB"


def _adapted(name: str, lora: LoraConfig) -> bool:
    return lora.target_modules == "all-linear" or name.rpartition(".")[2] in lora.target_modules
