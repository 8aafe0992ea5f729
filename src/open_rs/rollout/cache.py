"""The static key/value cache of the local engine: one slot a sequence, active sequences always in the first slots.

Legend: `S` slots, `K` tokens a slot holds, `H` key/value heads, `D` head width, `n` active slots, `L` visible tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

TOKEN_STEP = 64  # visible lengths grow in this step, so that kernels (and captured graphs) see few shapes


@dataclass(frozen=True, slots=True)
class CacheShape:
    """How large one cached token is."""

    num_layers: int
    num_heads: int
    head_width: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Keys and values of all layers."""
        return 2 * self.num_layers * self.num_heads * self.head_width * dtype.itemsize


class SlotCache:
    """Keys and values [layers, S, K, 2, H, D]. Zeroed once, because a masked stale NaN would still poison a sum."""

    def __init__(self, shape: CacheShape, num_slots: int, slot_tokens: int, dtype: torch.dtype, device: torch.device):
        self.num_slots = num_slots
        self.slot_tokens = round_up(slot_tokens, TOKEN_STEP)
        self.tokens = torch.zeros(
            (shape.num_layers, num_slots, self.slot_tokens, 2, shape.num_heads, shape.head_width),
            dtype=dtype,
            device=device,
        )
        self._flat = [layer.view(num_slots * self.slot_tokens, -1) for layer in self.tokens]

    def write(self, layer: int, places: torch.Tensor, keys_values: torch.Tensor) -> None:
        """Store one token a row: `places` [n] from `places_of`, `keys_values` [n, 2 * H * D]."""
        self._flat[layer].index_copy_(0, places, keys_values)

    def places_of(self, positions: torch.Tensor) -> torch.Tensor:
        """Where the first slots keep the tokens at `positions` [n]."""
        return positions + torch.arange(positions.shape[0], device=positions.device) * self.slot_tokens

    def read(self, layer: int, num_rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [n, H, L, D] of the first slots, as views."""
        block = self.tokens[layer, :num_rows, :length]
        return block[:, :, 0].transpose(1, 2), block[:, :, 1].transpose(1, 2)

    def fill(self, slot: int, prefix: torch.Tensor) -> None:
        """Start a slot with a prompt's keys and values [layers, P, 2, H, D]."""
        self.tokens[:, slot, : prefix.shape[1]] = prefix

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot over another."""
        self.tokens[:, target, :length] = self.tokens[:, source, :length]


def round_up(value: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-value // step) * step
