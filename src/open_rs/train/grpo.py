"""The objective as pure maths: advantages, the weight of each sequence, ratios, clipping and KL.

The loss of a step is `sum_n weights[n] * sum_t loss[n, t]` over all ranks, minibatches aside. Which normalisation is
meant (`grpo`, `dapo`, `dr_grpo`, `release`) is therefore one vector, and nothing below divides by a batch size.
Trained tokens come as flat vectors of `M` entries, so padding can't reach the maths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, stdev
from typing import Literal

import torch
from torch import Tensor

STD_EPSILON = 1e-4  # added to the standard deviation, as TRL has done since its first GRPO


@dataclass(frozen=True, slots=True)
class Totals:
    """What the weights divide by, counted over all ranks; groups without signal are counted like the others."""

    groups: float
    sequences: float
    tokens: float
    max_completion_length: int


@dataclass(frozen=True, slots=True)
class Objective:
    """How one token's loss follows from its ratio. `delta` bounds the ratio from above where the advantage is negative.

    With `cispo` (arXiv 2506.13585) the ratio is a constant factor, at most `epsilon_high`. `sampler_cap` truncates the
    learner/sampler weight; None leaves it out. With `unbiased_kl` the KL term is multiplied by the ratio, which makes
    its gradient that of the reverse KL (arXiv 2512.02556).
    """

    name: Literal["clip", "cispo"] = "clip"
    level: Literal["token", "sequence"] = "token"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    beta: float = 0.0
    unbiased_kl: bool = False
    sampler_cap: float | None = 2.0


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """What the objective knows about M trained tokens besides their log-probabilities, value by value.

    `old` None means on policy: the learner's own log-probabilities, detached. `sampler` is NaN where the engine gave
    none. `sequence` numbers the rows from 0; `sequence_tokens` is the count of trained tokens in the token's row.
    """

    advantages: Tensor  # [M] f32
    weights: Tensor  # [M] f32
    sequence: Tensor  # [M] i64
    sequence_tokens: Tensor  # [M] f32
    sampler: Tensor  # [M] f32
    old: Tensor | None  # [M] f32
    reference: Tensor | None  # [M] f32

    def part(self, rows: slice) -> TokenTerms:
        """The terms of a stretch of tokens."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: value[rows] for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True)
class TokenLosses:
    """Per-token results; only `loss` carries a gradient."""

    loss: Tensor  # [M], unweighted
    ratio: Tensor  # [M]
    kl: Tensor  # [M], 0 without a reference
    clipped_low: Tensor  # [M] bool: the ratio is under the clip and the advantage negative
    clipped_high: Tensor  # [M] bool


def advantages(
    rewards: Sequence[float], scale: Literal["group", "batch", "none"], batch_std: float, leave_one_out: bool
) -> list[float]:
    """Advantages of one group: its rewards minus their mean, divided by a standard deviation + 1e-4.

    With `leave_one_out` the baseline of a sample is the mean of the others. Equal rewards give exact zeros. The
    standard deviation is the unbiased one, of the group or, handed in, of the batch.
    `advantages([1.0, 0.0], "none", 0.0, False) == [0.5, -0.5]`.
    """
    if len(set(rewards)) < 2:
        return [0.0] * len(rewards)
    mean = fmean(rewards)
    centred = [reward - mean for reward in rewards]
    if leave_one_out:
        centred = [value * len(rewards) / (len(rewards) - 1) for value in centred]
    if scale == "none":
        return centred
    spread = stdev(rewards) if scale == "group" else batch_std
    return [value / (spread + STD_EPSILON) for value in centred]


def standard_deviation(count: float, total: float, total_of_squares: float) -> float:
    """Unbiased standard deviation from sums, which add up over ranks; 0 for fewer than two values."""
    if count < 2:
        return 0.0
    return max(total_of_squares - total * total / count, 0.0) ** 0.5 / (count - 1) ** 0.5


def token_losses(logprobs: Tensor, terms: TokenTerms, objective: Objective) -> TokenLosses:
    """The loss of each trained token, before its weight.

    `logprobs` [M] are the learner's, at the sampling temperature. The policy term is multiplied by the sampler
    correction; the KL term (k3, against the reference) is not.
    """
    old = logprobs.detach() if terms.old is None else terms.old
    log_ratio = logprobs - old
    if objective.level == "sequence":
        log_ratio = _sequence_mean(log_ratio, terms)
    ratio = log_ratio.exp()
    loss = OBJECTIVES[objective.name](ratio, logprobs, terms.advantages, objective)
    loss = loss * sampler_weights(old, terms.sampler, objective.sampler_cap)
    kl = torch.zeros_like(loss)
    if terms.reference is not None:
        kl = k3(terms.reference - logprobs)
        loss = loss + objective.beta * (kl * ratio if objective.unbiased_kl else kl)
    return TokenLosses(
        loss=loss,
        ratio=ratio.detach(),
        kl=kl.detach(),
        clipped_low=(ratio < 1 - objective.epsilon_low) & (terms.advantages < 0) & (objective.name == "clip"),
        clipped_high=(ratio > highest_ratio(objective)) & (terms.advantages > 0),
    )


def highest_ratio(objective: Objective) -> float:
    """The ratio above which a token with a positive advantage is clipped."""
    return objective.epsilon_high if objective.name == "cispo" else 1 + objective.epsilon_high


def sampler_weights(learner: Tensor, sampler: Tensor, cap: float | None) -> Tensor:
    """Truncated importance weight `min(p_learner / p_sampler, cap)` [M]; 1 where the sampler gave none."""
    if cap is None:
        return torch.ones_like(learner)
    return (learner - sampler).exp().clamp(max=cap).nan_to_num(nan=1.0)


def k3(log_ratio: Tensor) -> Tensor:
    """Schulman's estimator of KL(p || q) on samples of p: `exp(x) - x - 1` with `x = log q - log p`; never negative."""
    return log_ratio.exp() - log_ratio - 1


def _sequence_mean(values: Tensor, terms: TokenTerms) -> Tensor:
    """GSPO (arXiv 2507.18071): every token gets its sequence's mean log-ratio."""
    rows = int(terms.sequence.max()) + 1 if terms.sequence.numel() else 0
    sums = values.new_zeros(rows).index_add(0, terms.sequence, values)
    return sums[terms.sequence] / terms.sequence_tokens


def _clip(ratio: Tensor, logprobs: Tensor, advantage: Tensor, objective: Objective) -> Tensor:
    clipped = ratio.clamp(1 - objective.epsilon_low, 1 + objective.epsilon_high)
    bounded = ratio if objective.delta is None else ratio.clamp(max=objective.delta)
    return -torch.minimum(bounded * advantage, clipped * advantage)


def _cispo(ratio: Tensor, logprobs: Tensor, advantage: Tensor, objective: Objective) -> Tensor:
    return -ratio.detach().clamp(max=objective.epsilon_high) * advantage * logprobs


OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor, Objective], Tensor]] = {"clip": _clip, "cispo": _cispo}

# (trained tokens of the sequence, trained tokens of its group, totals) -> weight of each of its tokens
WEIGHT_RULES: dict[str, Callable[[int, int, Totals], float]] = {
    "grpo": lambda tokens, group_tokens, totals: 1 / (totals.sequences * tokens),
    "dapo": lambda tokens, group_tokens, totals: 1 / totals.tokens,
    "dr_grpo": lambda tokens, group_tokens, totals: 1 / (totals.sequences * totals.max_completion_length),
    "release": lambda tokens, group_tokens, totals: 1 / (totals.groups * group_tokens),
}
