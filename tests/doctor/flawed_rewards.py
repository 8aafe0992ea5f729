"""Rewards with a flaw, as people write them."""

from __future__ import annotations

from open_rs.types import Group


def opens_and_closes(group: Group) -> list[float | None]:
    """Demands the opening tag that R1's template has already written."""
    return [float(rollout.text.startswith("<think>") and "</think>" in rollout.text) for rollout in group.rollouts]


def always_one(group: Group) -> list[float | None]:
    """Says nothing."""
    return [1.0 for _ in group.rollouts]
