"""Rewards that give a random model something to learn, for tests of the loop."""

from __future__ import annotations

from open_rs.types import Group


def even_share(group: Group) -> list[float | None]:
    """The share of tokens with an even number."""
    return [sum(token % 2 == 0 for token in rollout.tokens) / len(rollout.tokens) for rollout in group.rollouts]


def constant(group: Group) -> list[float | None]:
    return [1.0] * len(group.rollouts)
