"""AdamW that loses no update and needs little memory: fp32 masters at two bytes a weight, states in 32 or 8 bit.

A bf16 weight rounds most steps of 1e-6 to nothing. Its fp32 master is kept as the bf16 weight itself plus the 16 bits
that rounding cut off, so master and working weight together take 4 bytes. An fp32 weight is its own master. The step
walks over each parameter in slices, so its temporaries are as large as a slice, and frees each gradient after use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

SLICE_ELEMENTS = 2**20
BLOCK = 256  # neighbours that share one scale in 8-bit states (arXiv 2110.02861)


class MasterAdamW(torch.optim.Optimizer):
    """Decoupled-weight-decay Adam over fp32 masters. A parameter without a gradient is stepped as if it were zero.

    Groups hold `lr`, `betas`, `eps`, `weight_decay`. With `eight_bit` the first moment and the root of the second are
    stored as one byte a weight in blocks of 256, where a parameter has at least 4,096 weights (smaller ones gain
    nothing).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        eight_bit: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "eight_bit": eight_bit}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter; gradients are gone afterwards."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._step_parameter(parameter, group)
                parameter.grad = None

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """The parameter's state by name, made if it is not there yet."""
        state = self.state[parameter]
        if not state:
            small = any(p is parameter for group in self.param_groups if group["eight_bit"] for p in group["params"])
            state.update(_new_state(parameter, small))
        return state

    def _step_parameter(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state_of(parameter)
        step_before = state["step"].clone()
        weight = parameter.view(-1)
        gradient = None if parameter.grad is None else parameter.grad.view(-1)
        for start in range(0, weight.numel(), SLICE_ELEMENTS):
            part = slice(start, min(start + SLICE_ELEMENTS, weight.numel()))
            state["step"].copy_(step_before)
            _step_slice(weight[part], None if gradient is None else gradient[part].float(), state, part, group)


def _step_slice(
    weight: Tensor, gradient: Tensor | None, state: dict[str, Tensor], part: slice, group: dict[str, Any]
) -> None:
    """Unpack a slice to fp32, let torch's fused kernel step it, and pack it again."""
    master = weight if weight.dtype == torch.float32 else join_master(weight, state["remainder"][part])
    first, second = _load_moment(state, "exp_avg", part), _load_moment(state, "exp_avg_sq", part)
    adamw(
        [master],
        [torch.zeros_like(master) if gradient is None else gradient],
        [first],
        [second],
        [],
        [state["step"]],
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
    _store_moment(state, "exp_avg", part, first)
    _store_moment(state, "exp_avg_sq", part, second)
    if weight.dtype != torch.float32:
        split_master(master, weight, state["remainder"][part])


def _new_state(parameter: Tensor, eight_bit: bool) -> dict[str, Tensor]:
    assert parameter.is_contiguous() and parameter.dtype in (torch.float32, torch.bfloat16), "fp32 or bf16, contiguous"
    size, device = parameter.numel(), parameter.device
    state = {"step": torch.zeros((), dtype=torch.float32, device=device)}
    if parameter.dtype == torch.bfloat16:
        state["remainder"] = torch.zeros(size, dtype=torch.int16, device=device)
    for name in ("exp_avg", "exp_avg_sq"):
        if eight_bit and size >= 16 * BLOCK:
            code = _zero_code(name)
            state[name] = torch.full((size,), code, dtype=torch.uint8, device=device)
            state[f"{name}_scale"] = torch.zeros(math.ceil(size / BLOCK), device=device)
        else:
            state[name] = torch.zeros(size, device=device)
    return state


def join_master(weight: Tensor, remainder: Tensor) -> Tensor:
    """The fp32 master of a bf16 weight: its bits in the upper half, plus the signed remainder."""
    upper = weight.view(torch.int16).to(torch.int32) << 16
    return (upper + remainder.to(torch.int32)).view(torch.float32)


def split_master(master: Tensor, weight: Tensor, remainder: Tensor) -> None:
    """Write an fp32 master as the nearest bf16 weight (ties away from zero) and the remainder; nothing is lost."""
    bits = master.view(torch.int32)
    upper = (bits + 0x8000) >> 16
    remainder.copy_(bits - (upper << 16))
    weight.view(torch.int16).copy_(upper)


def _load_moment(state: dict[str, Tensor], name: str, part: slice) -> Tensor:
    stored = state[name][part]
    if stored.dtype == torch.float32:
        return stored
    scale = state[f"{name}_scale"][part.start // BLOCK : math.ceil(part.stop / BLOCK)]
    value = _levels(name, str(stored.device))[stored.int()] * scale.repeat_interleave(BLOCK)[: len(stored)]
    return value if name == "exp_avg" else value.square_()


def _store_moment(state: dict[str, Tensor], name: str, part: slice, value: Tensor) -> None:
    stored = state[name][part]
    if stored.dtype == torch.float32:
        return  # the kernel wrote in place
    value = value if name == "exp_avg" else value.sqrt()
    blocks = torch.nn.functional.pad(value, (0, -len(value) % BLOCK)).view(-1, BLOCK)
    scale = blocks.abs().amax(dim=1)
    state[f"{name}_scale"][part.start // BLOCK : math.ceil(part.stop / BLOCK)] = scale
    unit = (blocks / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)).view(-1)[: len(value)]
    codes = _round_by_chance(unit, _levels(name, str(value.device)), noise(part, state["step"]))
    if name == "exp_avg_sq":
        codes.clamp_(min=1).masked_fill_(value == 0, 0)  # a second moment of 0 would blow the next step up
    stored.copy_(codes)


def _round_by_chance(value: Tensor, levels: Tensor, chance: Tensor) -> Tensor:
    """Codes whose expected level is `value`, so that a moving average drifts even by less than one level a step."""
    below = torch.bucketize(value, levels[1:-1], right=True)
    low, high = levels[below], levels[below + 1]
    return below + (chance * (high - low) < value - low)


def noise(part: slice, step: Tensor) -> Tensor:
    """Numbers in [0, 1) that depend on the place of a weight and the step only, so that a resumed run repeats them."""
    mask = 0xFFFFFFFF
    mixed = torch.arange(part.start, part.stop, device=step.device) * 0x9E3779B1 + int(step) * 0x85EBCA6B
    for shift in (16, 15):
        mixed = ((mixed & mask) ^ ((mixed & mask) >> shift)) * 0x7FEB352D
    return (mixed & mask).float() / 2**32


@lru_cache
def _levels(name: str, device: str) -> Tensor:
    """The 256 values of one byte: signed for the first moment, positive for the root of the second.

    A dynamic code (arXiv 1511.04561): seven decades, each with twice the levels of the one below, so that large values
    are precise and small ones are not zero.
    """
    signed = name == "exp_avg"
    decades = [
        10.0 ** (decade - 6) * (0.1 + 0.9 * (level + 0.5) / count)
        for decade in range(7)
        for count in [2 ** (decade + (0 if signed else 1))]
        for level in range(count)
    ]
    values = {0.0, 1.0, *decades, *(-value for value in decades if signed)}
    return torch.tensor(sorted(values), device=device)


def _zero_code(name: str) -> int:
    return int((_levels(name, "cpu") == 0).nonzero())
