"""Turning graded groups into the rows that the learner trains on, each with its advantage and its weight.

A rollout that can't change the weights carries no row: unscorable, empty, truncated under
`mask_truncated_completions`, or, where `beta` is 0, with an advantage of exactly 0. The weights still count it as the
loss type says, except unscorable rollouts, which count as never sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from open_rs.config.schema import AlgorithmConfig
from open_rs.train.grpo import WEIGHT_RULES, Totals, advantages, standard_deviation
from open_rs.types import Group, Rollout, Score, UserError

SumOverRanks = Callable[[Tensor], Tensor]  # [K] f64 -> [K] f64


@dataclass(frozen=True, slots=True)
class Batch:
    """N rows of T tokens, padded on the right; a value at index t describes token t.

    `sampler_logprobs` is NaN where the engine gave none. `reference_logprobs` None: no KL term, or not computed yet.
    `counts` are facts about all groups of all ranks, keyed as they are logged.
    """

    tokens: Tensor  # [N, T] i64
    trained: Tensor  # [N, T] bool
    sampler_logprobs: Tensor  # [N, T] f32
    reference_logprobs: Tensor | None  # [N, T] f32
    lengths: Tensor  # [N] i64, prompt and completion
    advantages: Tensor  # [N] f32
    weights: Tensor  # [N] f32
    counts: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Scored:
    """One group without its unscorable rollouts."""

    rollouts: tuple[Rollout, ...]  # [g]
    rewards: tuple[float, ...]  # [g]
    trained_tokens: tuple[int, ...]  # [g], 0 where the rollout trains nothing


def build_batch(
    groups: Sequence[Group],
    scores: Sequence[Sequence[Score]],
    algorithm: AlgorithmConfig,
    *,
    max_completion_length: int,
    sum_over_ranks: SumOverRanks = lambda sums: sums,
) -> Batch:
    """Rows, advantages and weights of one step. `scores[q][g]` belongs to `groups[q].rollouts[g]`.

    `max_completion_length` is what `dr_grpo` divides by. Every rank must call this, also with no group at all, because
    counts are summed over ranks. Raises UserError where a reward is NaN or infinite.
    """
    scored = [_scored(group, row, algorithm) for group, row in zip(groups, scores, strict=True)]
    facts = sum_over_ranks(_facts(groups, scored)).tolist()
    counts: dict[str, float] = dict(zip(FACTS, facts, strict=True))
    totals = Totals(counts["groups"], counts["sequences"], counts["tokens"], max_completion_length)
    batch_std = standard_deviation(counts["sequences"], counts["reward"], counts["reward_squared"])
    rows = [row for group in scored for row in _rows(group, algorithm, totals, batch_std)]
    return _padded(rows, _logged(counts))


def _scored(group: Group, scores: Sequence[Score], algorithm: AlgorithmConfig) -> _Scored:
    pairs = [(r, s.total) for r, s in zip(group.rollouts, scores, strict=True) if s.total is not None]
    for rollout, reward in pairs:
        if not math.isfinite(reward):
            raise UserError(
                f"reward: {reward} for problem `{rollout.problem_id}`, sample {rollout.sample}; a reward function must "
                "return a finite number, or None where it can't score"
            )
    masked = algorithm.mask_truncated_completions
    return _Scored(
        rollouts=tuple(rollout for rollout, _ in pairs),
        rewards=tuple(reward for _, reward in pairs),
        trained_tokens=tuple(0 if masked and r.finish == "length" else len(r.tokens) for r, _ in pairs),
    )


def _rows(
    group: _Scored, algorithm: AlgorithmConfig, totals: Totals, batch_std: float
) -> list[tuple[Rollout, float, float]]:
    """(rollout, advantage, weight) of every rollout that can change the weights."""
    values = advantages(group.rewards, algorithm.scale_rewards, batch_std, algorithm.leave_one_out)
    group_tokens = sum(group.trained_tokens)
    rule = WEIGHT_RULES[algorithm.loss_type]
    return [
        (rollout, advantage, rule(tokens, group_tokens, totals))
        for rollout, advantage, tokens in zip(group.rollouts, values, group.trained_tokens, strict=True)
        if tokens > 0 and (advantage != 0 or algorithm.beta > 0)
    ]


def _padded(rows: Sequence[tuple[Rollout, float, float]], counts: dict[str, float]) -> Batch:
    lengths = [len(rollout.prompt_tokens) + len(rollout.tokens) for rollout, _, _ in rows]
    shape = (len(rows), max(lengths, default=0))
    tokens = torch.zeros(shape, dtype=torch.int64)
    trained = torch.zeros(shape, dtype=torch.bool)
    sampler_logprobs = torch.full(shape, math.nan)
    for n, (rollout, _, _) in enumerate(rows):
        start, end = len(rollout.prompt_tokens), lengths[n]
        assert start > 0, "the first token of a row is predicted by nothing, so a prompt can't be empty"
        tokens[n, :end] = torch.tensor(rollout.prompt_tokens + rollout.tokens)
        trained[n, start:end] = True
        if rollout.logprobs is not None:
            sampler_logprobs[n, start:end] = torch.tensor(rollout.logprobs)
    return Batch(
        tokens=tokens,
        trained=trained,
        sampler_logprobs=sampler_logprobs,
        reference_logprobs=None,
        lengths=torch.tensor(lengths, dtype=torch.int64),
        advantages=torch.tensor([advantage for _, advantage, _ in rows], dtype=torch.float32),
        weights=torch.tensor([weight for _, _, weight in rows], dtype=torch.float32),
        counts=counts,
    )


# What is summed over ranks; the order of `_facts`.
FACTS: tuple[str, ...] = (
    "groups",
    "sequences",
    "tokens",
    "reward",
    "reward_squared",
    "sampled",
    "unscorable",
    "truncated",
    "all_right",
    "all_wrong",
    "no_signal",
)


def _facts(groups: Sequence[Group], scored: Sequence[_Scored]) -> Tensor:
    rewards = [reward for group in scored for reward in group.rewards]
    sampled = [rollout for group in groups for rollout in group.rollouts]
    silent = [
        {verdict.correct for verdict in group.verdicts}
        for group, rest in zip(groups, scored, strict=True)
        if len(set(rest.rewards)) == 1
    ]
    values = (
        sum(bool(group.rewards) for group in scored),
        len(rewards),
        sum(sum(group.trained_tokens) for group in scored),
        math.fsum(rewards),
        math.fsum(reward * reward for reward in rewards),
        len(sampled),
        len(sampled) - len(rewards),
        sum(rollout.finish == "length" for rollout in sampled),
        sum(verdicts == {True} for verdicts in silent),
        sum(verdicts == {False} for verdicts in silent),
        len(silent),
    )
    return torch.tensor(values, dtype=torch.float64)  # [len(FACTS)]


def _logged(counts: dict[str, float]) -> dict[str, float]:
    """The shares that go to the log. A group without signal has one and the same reward throughout."""
    groups = max(counts["groups"], 1.0)
    sampled = max(counts["sampled"], 1.0)
    other = counts["no_signal"] - counts["all_right"] - counts["all_wrong"]
    return {
        "groups_without_signal": counts["no_signal"] / groups,
        "groups_all_right": counts["all_right"] / groups,
        "groups_all_wrong": counts["all_wrong"] / groups,
        "groups_silent_otherwise": other / groups,
        "unscorable": counts["unscorable"] / sampled,
        "truncated": counts["truncated"] / sampled,
    }
