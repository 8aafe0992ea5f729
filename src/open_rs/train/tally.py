"""What an update did, counted while it ran: sums over trained tokens, maxima, and one entry for each optimiser step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from open_rs.train.grpo import TokenLosses, TokenTerms, k3

Reduce = Callable[[Tensor], Tensor]

SUMS = (
    "loss",
    "tokens",
    "kl",
    "ratio",
    "clip_low",
    "clip_high",
    "sampler_tokens",
    "sampler_kl",
    "sampler_gap",
    "entropy",
)
MAXIMA = ("ratio_max", "sampler_gap_max")


class Tally:
    """Running sums of one optimiser step on one rank. They stay on the device until `reduce`, to spare it waits."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(SUMS), device=device)
        self._maxima = torch.zeros(len(MAXIMA), device=device)

    def add_losses(self, losses: TokenLosses, logprobs: Tensor, terms: TokenTerms) -> None:
        """Count M trained tokens."""
        known = ~terms.sampler.isnan()
        gap = torch.where(known, logprobs - terms.sampler, 0.0)  # learner minus sampler
        loss = (losses.loss.detach() * terms.weights).sum()
        parts = (losses.kl, losses.ratio, losses.clipped_low, losses.clipped_high, known, k3(gap), gap.abs())
        sums = [loss, loss.new_tensor(len(logprobs)), *(part.sum() for part in parts), loss.new_zeros(())]
        self._sums += torch.stack([value.float() for value in sums])
        maxima = torch.stack([losses.ratio.max(), gap.abs().max()])
        self._maxima = torch.maximum(self._maxima, maxima)

    def add_entropies(self, entropies: Tensor) -> None:
        self._sums[SUMS.index("entropy")] += entropies.sum()

    def reduce(self, sum_over_ranks: Reduce, max_over_ranks: Reduce) -> dict[str, float]:
        """The totals over all ranks, by name."""
        sums = sum_over_ranks(self._sums.double().cpu()).tolist()
        maxima = max_over_ranks(self._maxima.double().cpu()).tolist()
        return dict(zip((*SUMS, *MAXIMA), (*sums, *maxima), strict=True))


def summarize(steps: list[dict[str, float]]) -> dict[str, float]:
    """What is logged of an update's optimiser steps: means over trained tokens, maxima, and means over steps."""
    total = {name: sum(step[name] for step in steps) for name in SUMS}
    tokens, known = max(total["tokens"], 1.0), max(total["sampler_tokens"], 1.0)
    return {
        "loss": total["loss"] / len(steps),
        "grad_norm": sum(step["grad_norm"] for step in steps) / len(steps),
        "entropy": total["entropy"] / tokens,
        "kl": total["kl"] / tokens,
        "ratio_mean": total["ratio"] / tokens if total["tokens"] else 1.0,
        "ratio_max": max(step["ratio_max"] for step in steps) if total["tokens"] else 1.0,
        "clip_low": total["clip_low"] / tokens,
        "clip_high": total["clip_high"] / tokens,
        "sampler_kl": total["sampler_kl"] / known,
        "sampler_gap_mean": total["sampler_gap"] / known,
        "sampler_gap_max": max(step["sampler_gap_max"] for step in steps),
        "tokens_trained": total["tokens"],
        "optimizer_steps": float(len(steps)),
        "updates_skipped": sum(step["skipped"] for step in steps),
    }
