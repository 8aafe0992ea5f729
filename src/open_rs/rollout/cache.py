"""The static key/value cache of the local engine: one slot a sequence, active sequences always in the first slots.

Legend: `S` slots, `K` tokens a slot holds, `H` key/value heads, `D` head width, `n` active slots, `L` visible tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch

TOKEN_STEP = 16  # visible lengths grow in this step, so that kernels see few shapes and the same rounding


@dataclass(frozen=True, slots=True)
class CacheShape:
    """How large one cached token is."""

    num_layers: int
    num_heads: int
    head_width: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_heads * self.head_width * self.dtype.itemsize


class SlotCache:
    """Keys and values [layers, 2, S, H, K, D]. Zeroed once, because a masked stale NaN would still poison a sum."""

    def __init__(self, shape: CacheShape, num_slots: int, slot_tokens: int, device: torch.device):
        self.shape, self.num_slots = shape, num_slots
        self.slot_tokens = round_up(slot_tokens, TOKEN_STEP)
        sizes = (shape.num_layers, 2, num_slots, shape.num_heads, self.slot_tokens, shape.head_width)
        self.tokens = _zeros(sizes, shape.dtype, device)
        self._flat = [layer.view(-1, shape.head_width) for layer in self.tokens]
        slots = torch.arange(2 * num_slots * shape.num_heads, device=device) * self.slot_tokens
        self._slot_starts = slots.view(2, num_slots, shape.num_heads)

    def places_of(self, positions: torch.Tensor) -> torch.Tensor:
        """Where the first slots keep the keys and values of the tokens at `positions` [n]: [2 * n * H]."""
        return (self._slot_starts[:, : positions.shape[0]] + positions[:, None]).flatten()

    def write(self, layer: int, places: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Store one token a row: `places` [2 * n * H] from `places_of`, `keys_values` [2, n, H, D]."""
        self._flat[layer].index_copy_(0, places, keys_values.flatten(0, 2))

    def read(self, layer: int, num_rows: int, length: int) -> torch.Tensor:
        """Keys and values [2, n, H, L, D] of the first slots, as a view."""
        return self.tokens[layer, :, :num_rows, :, :length]

    def fill(self, slot: int, prefix: torch.Tensor) -> None:
        """Start a slot with a prompt's keys and values [layers, 2, H, P, D]."""
        self.tokens[:, :, slot, :, : prefix.shape[-2]] = prefix

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot over another."""
        self.tokens[:, :, target, :, :length] = self.tokens[:, :, source, :, :length]


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros; on a CPU of pages that cost neither time nor memory before they are written to, as numpy asks for them."""
    if device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(prod(sizes) * dtype.itemsize, np.uint8)).view(dtype).view(sizes)


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step
