"""Products with a module's own linear layers, several that read the same input fused into one.

On the CPU the weights are packed into oneDNN's layout (in float32 more than twice as fast as the plain product) and the
activations are fused into the products; elsewhere the module's tensors are used as they are. LoRA layers keep their
low-rank path, so that the sampler computes what the learner computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear

PACKED_ROWS = 64  # the number of rows that oneDNN lays the weights out for


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


def is_plain(layer: Any) -> bool:
    """A dense linear layer, or one LoRA adapter (not merged, not switched off, no variant) around it."""
    if _is_adapted(layer):
        single = len(layer.active_adapters) == 1 and not layer.disable_adapters and not layer.merged
        return single and not layer.lora_variant and type(layer.base_layer) is torch.nn.Linear
    return type(layer) is torch.nn.Linear


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights of that dtype on that device can be packed."""
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and _packs(dtype)


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies packed weights of that dtype (bfloat16 needs AVX-512 or better)."""
    rows = torch.ones(2, 16, dtype=dtype)
    try:
        torch.ops.mkldnn._linear_pointwise(rows, _pack(torch.ones(16, 16, dtype=dtype)), None, "none", [], "")
    except RuntimeError:
        return False
    return True
