"""Lean prefill and decode for Qwen2, Qwen3 and Llama, reading the module's own weights.

Legend: `n` rows, `P` prompt tokens, `d` model width, `H` key/value heads, `D` head width, `V` words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from open_rs.models import CausalLM
from open_rs.rollout.attention import (
    Attend,
    Attention,
    HeadNorms,
    NativeAttention,
    cache_shape,
    head_width,
    rms_norm,
)
from open_rs.rollout.cache import TOKEN_STEP, SlotCache, round_up
from open_rs.rollout.graphs import GraphedStep, Step
from open_rs.rollout.native import Kernels, fits, load_kernels
from open_rs.rollout.projection import Projection, can_pack, is_plain

ROW_STEP = 8  # rows are padded to this step: few shapes, and the same kernels whatever the batch
GRAPH_LENGTH_STEP = 256  # visible lengths of captured graphs grow in this step
STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})  # types whose table does not depend on the length


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Any
    qkv: Projection
    output: Projection
    mlp_norm: Any
    gate: Projection
    up: Projection
    down: Projection


class Decoder:
    """The forward pass of one sampling model over a static cache of `num_slots` sequences of `slot_tokens`."""

    def __init__(self, model: CausalLM, num_slots: int, slot_tokens: int):
        pack = can_pack(model.device, model.dtype)
        layers = model.base.model.layers
        norms = [_head_norms(layer.self_attn) for layer in layers]
        self.kernels = kernels_of(model)
        self.cache = SlotCache(cache_shape(model, self.kernels), num_slots, slot_tokens, model.device)
        self.attention = (
            NativeAttention(model, self.cache, norms, self.kernels)
            if self.kernels
            else Attention(model, self.cache, norms)
        )
        self.embedding = model.base.get_input_embeddings().weight.detach()
        self.layers = [_read_layer(layer, pack) for layer in layers]
        self.norm = model.base.model.norm
        self.head = Projection([model.base.get_output_embeddings()], pack)
        on_cuda = model.device.type == "cuda"
        self._row_sizes = _row_sizes(num_slots, coarse=on_cuda)
        self._length_step = GRAPH_LENGTH_STEP if on_cuda else TOKEN_STEP
        self._graphs: GraphedStep | None = None
        if on_cuda:
            vocabulary = self.embedding.shape[0]
            self._graphs = GraphedStep(self._logits, num_slots, vocabulary, model.dtype, model.device)

    def prefill(self, tokens: torch.Tensor) -> torch.Tensor:
        """Keys and values [layers, 2, H, P, D] of one prompt [P].

        The prompt is padded to a multiple of `ROW_STEP` and never batched with another, so its cache never varies.
        """
        length = tokens.shape[0]
        padded = F.pad(tokens, (0, -length % ROW_STEP))
        kept: list[torch.Tensor] = []
        attend = self.attention.prefill(length, padded.shape[0], kept)
        self._hidden(padded, attend, last_layer_needs_only_keys=True)
        return torch.stack(kept)

    def padded_rows(self, num_rows: int) -> int:
        """How many rows to feed for `num_rows` active ones: few sizes, and the same kernels whatever the batch."""
        return min(self.cache.num_slots, next(size for size in self._row_sizes if size >= num_rows))

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, length: int) -> torch.Tensor:
        """Feed one token a row (`tokens`, `positions` [n]) and return logits [n, V], which last until the next call.

        The first `length` tokens of each slot are looked at; it must exceed every position.
        """
        run: Step = self._logits if self._graphs is None else self._graphs
        return run(tokens, positions, min(self.cache.slot_tokens, round_up(length, self._length_step)))

    def release(self) -> None:
        """Let go of the graphs: their step is bound to this decoder, and the circle would keep the cache alive."""
        self._graphs = None

    def _logits(self, tokens: torch.Tensor, positions: torch.Tensor, length: int) -> torch.Tensor:
        hidden = self._hidden(tokens, self.attention.step(positions, length))
        return self.head(self._normalise(hidden, self.norm))

    def _hidden(self, tokens: torch.Tensor, attend: Attend, last_layer_needs_only_keys: bool = False) -> torch.Tensor:
        """Hidden states [n, d] of `tokens` [n]."""
        x = F.embedding(tokens, self.embedding)
        for index, layer in enumerate(self.layers):
            mixed = attend(index, layer.qkv(self._normalise(x, layer.attention_norm)))
            if last_layer_needs_only_keys and index == len(self.layers) - 1:
                return x
            x = layer.output.combined(mixed, x, "add")
            y = self._normalise(x, layer.mlp_norm)
            x = layer.down.combined(layer.up.combined(y, layer.gate(y, "swish"), "mul"), x, "add")
        return x

    def _normalise(self, x: torch.Tensor, norm: Any) -> torch.Tensor:
        if self.kernels is None:
            return rms_norm(x, norm)
        return self.kernels.rms_norm(x, norm.weight, norm.variance_epsilon)


def kernels_of(model: CausalLM) -> Kernels | None:
    """The compiled kernels, where they fit this model and this machine."""
    if model.device.type != "cpu" or not fits(model.dtype, model.base.config.hidden_size, head_width(model)):
        return None
    one_dtype = all(weight.dtype == model.dtype for weight in model.base.parameters() if weight.ndim == 1)
    return load_kernels(model.dtype) if one_dtype else None


def _row_sizes(num_slots: int, coarse: bool) -> list[int]:
    """The row counts that a step is run with: multiples of `ROW_STEP`, or for graphs powers of two and then 64s."""
    sizes = [ROW_STEP]
    while sizes[-1] < num_slots:
        sizes.append(sizes[-1] + (min(sizes[-1], 64) if coarse else ROW_STEP))
    return sizes


def _head_norms(attention: Any) -> HeadNorms | None:
    query = getattr(attention, "q_norm", None)
    return None if query is None else HeadNorms(query, attention.k_norm)


def _read_layer(layer: Any, pack: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        attention_norm=layer.input_layernorm,
        qkv=Projection([attention.q_proj, attention.k_proj, attention.v_proj], pack),
        output=Projection([attention.o_proj], pack),
        mlp_norm=layer.post_attention_layernorm,
        gate=Projection([mlp.gate_proj], pack),
        up=Projection([mlp.up_proj], pack),
        down=Projection([mlp.down_proj], pack),
    )


def is_supported(model: CausalLM) -> bool:
    """Whether this decoder computes exactly what the module computes; every other model takes the general path."""
    config = model.base.config
    if type(model.base).__name__ not in CLASSES or config.hidden_act != "silu":
        return False
    if config.rope_parameters["rope_type"] not in STATIC_ROPE:
        return False
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return False
    return all(is_plain(layer) for layer in _linear_layers(model))


def _linear_layers(model: CausalLM) -> list[Any]:
    found = [model.base.get_output_embeddings()]
    for layer in model.base.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return found


CLASSES = frozenset({"Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"})
