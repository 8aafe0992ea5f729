"""Lean prefill and decode for Qwen2, Qwen3 and Llama, reading the module's own weights.

On the CPU the weights are packed into oneDNN's layout while the engine is awake (in float32 more than twice as fast as
the plain product) and the activations are fused into the products; elsewhere the module's tensors are used as they are.
LoRA layers keep their low-rank path, so that the sampler computes what the learner computes.
Legend: `n` rows, `P` prompt tokens, `d` model width, `Hq` query heads, `H` key/value heads, `D` head width, `V` words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear

from open_rs.models import CausalLM
from open_rs.rollout.cache import TOKEN_STEP, CacheShape, SlotCache, round_up
from open_rs.rollout.graphs import GraphedStep, Step

ROW_STEP = 8  # rows are padded to this step: few shapes, and the same kernels whatever the batch
GRAPH_LENGTH_STEP = 256  # visible lengths of captured graphs grow in this step
PACKED_ROWS = 64  # the number of rows that oneDNN lays the weights out for
STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})  # types whose table does not depend on the length


class Projection:
    """One product `x W^T + b` made of one or several linear layers of the module that read the same input."""

    def __init__(self, layers: Sequence[Any], pack: bool):
        bases = [_base_of(layer) for layer in layers]
        weights = [base.weight.detach() for base in bases]
        biases = [None if base.bias is None else base.bias.detach() for base in bases]
        self.packed = pack
        self.weights = [_pack(_joined(weights))] if pack else weights
        self.biases = [_joined(biases)] if pack else biases
        self.adapters = [_adapter_of(layer) for layer in layers] if any(map(_is_adapted, layers)) else None
        self.fuses = pack and self.adapters is None

    def __call__(self, x: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """`x` [n, in] to [n, out]; `activation` is "none" or "swish"."""
        if self.fuses:
            return self._packed_product(x, activation)
        y = self._product(x)
        if self.adapters is not None:
            y = (y + torch.cat([_low_rank(x, adapter) for adapter in self.adapters], -1)).to(x.dtype)
        return F.silu(y) if activation == "swish" else y

    def combined(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        """`project(x) + other` or `project(x) * other`, by `operation` "add" or "mul"."""
        if self.fuses:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weights[0], self.biases[0], operation)
        y = self(x)
        return y + other if operation == "add" else y * other

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if self.packed:
            return self._packed_product(x, "none")
        parts = [F.linear(x, weight, bias) for weight, bias in zip(self.weights, self.biases, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def _packed_product(self, x: torch.Tensor, activation: str) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weights[0], self.biases[0], activation, [], "")


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A LoRA path `scale * (x A^T) B^T`, with A [r, in] and B [out, r], in the adapter's own dtype as in PEFT."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def _low_rank(x: torch.Tensor, adapter: _Adapter) -> torch.Tensor:
    return F.linear(F.linear(x.to(adapter.down.dtype), adapter.down), adapter.up) * adapter.scale


def _is_adapted(layer: Any) -> bool:
    return isinstance(layer, LoraLinear)


def _base_of(layer: Any) -> Any:
    return layer.base_layer if _is_adapted(layer) else layer


def _adapter_of(layer: Any) -> _Adapter:
    base = _base_of(layer)
    if not _is_adapted(layer):
        zero = base.weight.new_zeros
        return _Adapter(zero(1, base.weight.shape[1]), zero(base.weight.shape[0], 1), 1.0)
    name = layer.active_adapters[0]
    return _Adapter(layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach(), layer.scaling[name])


def _joined(tensors: Sequence[Any]) -> Any:
    """Rows of several layers in one tensor; None where the layers have no bias."""
    return tensors[0] if len(tensors) == 1 or tensors[0] is None else torch.cat(list(tensors))


def _pack(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_ROWS)


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Any
    qkv: Projection
    query_norm: Any | None  # Qwen3 normalises each head
    key_norm: Any | None
    output: Projection
    mlp_norm: Any
    gate: Projection
    up: Projection
    down: Projection


class Decoder:
    """The forward pass of one sampling model over a `SlotCache`."""

    def __init__(self, model: CausalLM, slots: SlotCache):
        config = model.base.config
        pack = _can_pack(model)
        self.cache = slots
        self.num_query_heads: int = config.num_attention_heads
        self.shape = cache_shape(model)
        self._attention = _attention_on_cpu if model.device.type == "cpu" else _attention_on_device
        self.embedding = model.base.get_input_embeddings().weight.detach()
        self.layers = [_read_layer(layer, pack) for layer in model.base.model.layers]
        self.norm = model.base.model.norm
        self.head = Projection([model.base.get_output_embeddings()], pack)
        self.cosine, self.signed_sine = _rotary_tables(model, slots.slot_tokens)
        on_cuda = model.device.type == "cuda"
        self._row_sizes = _row_sizes(slots.num_slots, coarse=on_cuda)
        self._length_step = GRAPH_LENGTH_STEP if on_cuda else TOKEN_STEP
        self._graphs: GraphedStep | None = None
        if on_cuda:
            vocabulary = self.embedding.shape[0]
            self._graphs = GraphedStep(self._logits, slots.num_slots, vocabulary, model.dtype, model.device)

    def prefill(self, tokens: torch.Tensor) -> torch.Tensor:
        """Keys and values [layers, 2, H, P, D] of one prompt [P].

        The prompt is padded to a multiple of `ROW_STEP` and never batched with another, so its cache never varies.
        """
        length = tokens.shape[0]
        padded = F.pad(tokens, (0, -length % ROW_STEP))
        rows = torch.arange(padded.shape[0], device=tokens.device)
        kept: list[torch.Tensor] = []

        def attend(layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
            by_head = keys_values.transpose(1, 2)  # [2, H, P, D]
            kept.append(by_head[:, :, :length])
            query = query.flatten(1, 2).transpose(0, 1)[None]  # [1, Hq, P, D]
            key, value = by_head[:, None]
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return mixed[0].transpose(0, 1).flatten(1)

        self._hidden(padded, rows, attend, last_layer_needs_only_keys=True)
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
        places = self.cache.places_of(positions)
        hidden = torch.arange(length, device=tokens.device) > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.shape.dtype, device=tokens.device)  # [n, L]
        mask.masked_fill_(hidden, float("-inf"))

        def attend(layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
            self.cache.write(layer, places, keys_values.to(self.shape.dtype))
            keys, values = self.cache.read(layer, tokens.shape[0], length)
            return self._attention(query, keys, values, mask)

        return self.head(_normalise(self._hidden(tokens, positions, attend), self.norm))

    def _hidden(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        attend: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
        last_layer_needs_only_keys: bool = False,
    ) -> torch.Tensor:
        """Hidden states [n, d]; `attend(layer, query [n, H, Hq/H, D], keys_values [2, n, H, D])` gives [n, Hq * D]."""
        cosine, sine = self.cosine[positions][:, None], self.signed_sine[positions][:, None]  # [n, 1, D]
        x = F.embedding(tokens, self.embedding)
        for index, layer in enumerate(self.layers):
            query, keys_values = self._query_key_value(layer, _normalise(x, layer.attention_norm), cosine, sine)
            mixed = attend(index, query, keys_values)
            if last_layer_needs_only_keys and index == len(self.layers) - 1:
                return x
            x = layer.output.combined(mixed, x, "add")
            y = _normalise(x, layer.mlp_norm)
            x = layer.down.combined(layer.up.combined(y, layer.gate(y, "swish"), "mul"), x, "add")
        return x

    def _query_key_value(
        self, layer: _Layer, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        width, heads = self.shape.head_width, self.shape.num_heads
        heads_in_all = layer.qkv(x).unflatten(-1, (-1, width))  # [n, Hq + 2 H, D]
        queries_keys = heads_in_all[:, : self.num_query_heads + heads]
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = queries_keys.split((self.num_query_heads, heads), 1)
            queries_keys = torch.cat((_normalise(query, layer.query_norm), _normalise(key, layer.key_norm)), 1)
        turned = queries_keys * cosine + queries_keys.roll(width // 2, -1) * sine
        query, key = turned.split((self.num_query_heads, heads), 1)
        keys_values = torch.stack((key, heads_in_all[:, -heads:]))  # [2, n, H, D]
        return query.unflatten(1, (heads, -1)), keys_values


def _row_sizes(num_slots: int, coarse: bool) -> list[int]:
    """The row counts that a step is run with: multiples of `ROW_STEP`, or for graphs powers of two and then 64s."""
    sizes = [ROW_STEP]
    while sizes[-1] < num_slots:
        sizes.append(sizes[-1] + (min(sizes[-1], 64) if coarse else ROW_STEP))
    return sizes


def _read_layer(layer: Any, pack: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        attention_norm=layer.input_layernorm,
        qkv=Projection([attention.q_proj, attention.k_proj, attention.v_proj], pack),
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
        output=Projection([attention.o_proj], pack),
        mlp_norm=layer.post_attention_layernorm,
        gate=Projection([mlp.gate_proj], pack),
        up=Projection([mlp.up_proj], pack),
        down=Projection([mlp.down_proj], pack),
    )


def _normalise(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """The RMS norm of a module, in one call."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _attention_on_cpu(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Two batched products over a float32 cache: on CPUs about twice as fast as the flash kernel at one query a row.

    `query` [n, H, R, D], `keys` and `values` [n, H, L, D], `mask` [n, L]; returns [n, H * R * D].
    """
    num_rows, num_heads, _, width = query.shape
    bias = mask[:, None, None].expand(-1, num_heads, 1, -1).flatten(0, 1)  # [n * H, 1, L]
    scores = torch.baddbmm(
        bias, query.flatten(0, 1).to(keys.dtype), keys.flatten(0, 1).transpose(1, 2), alpha=width**-0.5
    )
    mixed = torch.bmm(scores.softmax(-1), values.flatten(0, 1))  # [n * H, R, D]
    return mixed.view(num_rows, -1).to(query.dtype)


def _attention_on_device(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """As `_attention_on_cpu`, in one fused kernel; grouped heads are rows of one query, so nothing is repeated."""
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask[:, None, None]).flatten(1)


def _rotary_tables(model: CausalLM, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and signed sine [K, D] from the module's own rotary embedding; the sign does the half-rotation's minus."""
    positions = torch.arange(num_positions, device=model.device)[None]
    sample = torch.empty(0, dtype=model.dtype, device=model.device)
    cosine, sine = model.base.model.rotary_emb(sample, positions)
    sign = torch.ones(sine.shape[-1], dtype=sine.dtype, device=sine.device)
    sign[: sine.shape[-1] // 2] = -1
    return cosine[0], sine[0] * sign


def cache_shape(model: CausalLM) -> CacheShape:
    """How much one token of this model takes in the cache."""
    config = model.base.config
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dtype = torch.float32 if model.device.type == "cpu" else model.dtype  # CPUs have no fast bfloat16 attention
    return CacheShape(config.num_hidden_layers, config.num_key_value_heads, head_width, dtype)


def is_supported(model: CausalLM) -> bool:
    """Whether this decoder computes exactly what the module computes; every other model takes the general path."""
    config = model.base.config
    if type(model.base).__name__ not in CLASSES or config.hidden_act != "silu":
        return False
    if config.rope_parameters["rope_type"] not in STATIC_ROPE:
        return False
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return False
    return all(_is_plain(layer) for layer in _linear_layers(model))


def _linear_layers(model: CausalLM) -> list[Any]:
    found = [model.base.get_output_embeddings()]
    for layer in model.base.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return found


def _is_plain(layer: Any) -> bool:
    """A dense linear layer, or one LoRA adapter (not merged, not switched off, no variant) around it."""
    if _is_adapted(layer):
        single = len(layer.active_adapters) == 1 and not layer.disable_adapters and not layer.merged
        return single and not layer.lora_variant and type(layer.base_layer) is torch.nn.Linear
    return type(layer) is torch.nn.Linear


def _can_pack(model: CausalLM) -> bool:
    return model.device.type == "cpu" and torch.backends.mkldnn.is_available() and _packs(model.dtype)


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies packed weights of that dtype (bfloat16 needs AVX-512 or better)."""
    rows = torch.ones(2, 16, dtype=dtype)
    try:
        torch.ops.mkldnn._linear_pointwise(rows, _pack(torch.ones(16, 16, dtype=dtype)), None, "none", [], "")
    except RuntimeError:
        return False
    return True


CLASSES = frozenset({"Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"})
