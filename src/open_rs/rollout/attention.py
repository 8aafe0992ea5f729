"""Attention of the decoder: heads are turned by their position, new keys and values kept, the slots looked at.

Three ways for a decode step: the compiled kernel on CPUs, two batched products on CPUs without a compiler, one fused
kernel of torch on devices. Legend: `n` rows, `P` prompt tokens, `Hq` query heads, `H` key/value heads, `R` = Hq / H,
`D` head width, `L` visible tokens, `K` tokens a slot holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from open_rs.models import CausalLM
from open_rs.rollout.cache import CacheShape, SlotCache
from open_rs.rollout.native import AttentionArguments, Kernels

Attend = Callable[[int, torch.Tensor], torch.Tensor]  # layer, projected [n, (Hq + 2 H) * D] -> mixed [n, Hq * D]


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMS norms of each query and each key head, where the model has them (Qwen3)."""

    query: Any
    key: Any


class Attention:
    """Torch's operators, on any device."""

    def __init__(self, model: CausalLM, slots: SlotCache, norms: Sequence[HeadNorms | None]):
        self.num_query_heads: int = model.base.config.num_attention_heads
        self.slots, self.norms = slots, norms
        self.cosine, self.signed_sine = _rotary_tables(model, slots.slot_tokens)
        self._mix = _mix_on_cpu if model.device.type == "cpu" else _mix_on_device

    def prefill(self, length: int, padded: int, kept: list[torch.Tensor]) -> Attend:
        """For the first `length` tokens of one prompt, padded to `padded` rows; appends [2, H, P, D] a layer."""
        cosine, sine = self.cosine[:padded, None], self.signed_sine[:padded, None]  # [n, 1, D]

        def attend(layer: int, projected: torch.Tensor) -> torch.Tensor:
            query, keys_values = self._turned(layer, projected, cosine, sine)
            by_head = keys_values.transpose(1, 2)  # [2, H, P, D]
            kept.append(by_head[:, :, :length])
            key, value = by_head[:, None]
            query = query.flatten(1, 2).transpose(0, 1)[None]  # [1, Hq, P, D]
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            return mixed[0].transpose(0, 1).flatten(1)

        return attend

    def step(self, positions: torch.Tensor, length: int) -> Attend:
        """For one new token a row at `positions` [n]; the first `length` tokens of each slot are looked at."""
        slots, num_rows = self.slots, positions.shape[0]
        cosine, sine = self.cosine[positions][:, None], self.signed_sine[positions][:, None]  # [n, 1, D]
        places = slots.places_of(positions)
        hidden = torch.arange(length, device=positions.device) > positions[:, None]
        mask = torch.zeros(hidden.shape, dtype=slots.tokens.dtype, device=positions.device)  # [n, L]
        mask.masked_fill_(hidden, float("-inf"))

        def attend(layer: int, projected: torch.Tensor) -> torch.Tensor:
            query, keys_values = self._turned(layer, projected, cosine, sine)
            slots.write(layer, places, keys_values.to(mask.dtype))
            keys, values = slots.read(layer, num_rows, length)
            return self._mix(query, keys, values, mask)

        return attend

    def _turned(
        self, layer: int, projected: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries [n, H, R, D], keys and values [2, n, H, D], after the rotary embedding."""
        heads, width = self.slots.shape.num_heads, self.slots.shape.head_width
        parts = projected.unflatten(-1, (-1, width))  # [n, Hq + 2 H, D]
        queries_keys = parts[:, : self.num_query_heads + heads]
        norms = self.norms[layer]
        if norms is not None:
            query, key = queries_keys.split((self.num_query_heads, heads), 1)
            queries_keys = torch.cat((rms_norm(query, norms.query), rms_norm(key, norms.key)), 1)
        turned = queries_keys * cosine + queries_keys.roll(width // 2, -1) * sine
        query, key = turned.split((self.num_query_heads, heads), 1)
        return query.unflatten(1, (heads, -1)), torch.stack((key, parts[:, -heads:]))


class NativeAttention(Attention):
    """The decode step by the compiled kernel; each row reads only as many tokens as it has."""

    def __init__(self, model: CausalLM, slots: SlotCache, norms: Sequence[HeadNorms | None], kernels: Kernels):
        super().__init__(model, slots, norms)
        self.kernels = kernels
        self._arguments = [self._arguments_of(layer) for layer in range(slots.shape.num_layers)]

    def step(self, positions: torch.Tensor, length: int) -> Attend:
        return lambda layer, projected: self.kernels.attend(self._arguments[layer], projected, positions)

    def _arguments_of(self, layer: int) -> AttentionArguments:
        norms, (keys, values) = self.norms[layer], self.slots.tokens[layer]
        return AttentionArguments(
            cosine=self.cosine.data_ptr(),
            signed_sine=self.signed_sine.data_ptr(),
            query_norm=norms and norms.query.weight.data_ptr(),
            key_norm=norms and norms.key.weight.data_ptr(),
            keys=keys.data_ptr(),
            values=values.data_ptr(),
            slot_tokens=self.slots.slot_tokens,
            query_heads=self.num_query_heads,
            heads=self.slots.shape.num_heads,
            width=self.slots.shape.head_width,
            epsilon=norms.query.variance_epsilon if norms else 0.0,
        )


def rms_norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """The RMS norm of a module, in one call."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _mix_on_cpu(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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


def _mix_on_device(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As `_mix_on_cpu`, in one fused kernel; grouped heads are rows of one query, so nothing is repeated."""
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask[:, None, None]).flatten(1)


def _rotary_tables(model: CausalLM, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and signed sine [K, D] from the module's own rotary embedding; the sign does the half-rotation's minus."""
    positions = torch.arange(num_positions, device=model.device)[None]
    sample = torch.empty(0, dtype=model.dtype, device=model.device)
    cosine, sine = model.base.model.rotary_emb(sample, positions)
    sign = torch.ones(sine.shape[-1], dtype=sine.dtype, device=sine.device)
    sign[: sine.shape[-1] // 2] = -1
    return cosine[0].contiguous(), sine[0] * sign


def cache_shape(model: CausalLM, kernels: Kernels | None) -> CacheShape:
    """How much one token of this model takes in the cache."""
    config = model.base.config
    on_cpu = model.device.type == "cpu" and kernels is None  # torch has no fast bfloat16 attention there
    dtype = torch.float32 if on_cpu else model.dtype
    return CacheShape(config.num_hidden_layers, config.num_key_value_heads, head_width(model), dtype)


def head_width(model: CausalLM) -> int:
    """Numbers in one head."""
    config = model.base.config
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
