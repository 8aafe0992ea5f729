"""What a step's rollouts say of the policy, as sums that add up over processes, and the means made from them.

Shares of groups and of unscorable and truncated rollouts are counted where the batch is built. Every key is defined in
`docs/metrics.md`; a test compares the two lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from open_rs.types import Group, Score


def count(groups: Sequence[Group], scores: Sequence[Sequence[Score]], terms: Sequence[str]) -> dict[str, float]:
    """Sums over this process's rollouts. The keys depend on `terms` alone, so processes can add them up in order."""
    sums = dict.fromkeys((*COUNTED, *(f"reward_{name}" for name in terms)), 0.0)
    for group, group_scores in zip(groups, scores, strict=True):
        for rollout, verdict, score in zip(group.rollouts, group.verdicts, group_scores, strict=True):
            tokens, right, wrong = len(rollout.tokens), verdict.correct is True, verdict.correct is False
            sums["rollouts"] += 1
            sums["tokens"] += tokens
            sums["prompt_tokens"] += len(rollout.prompt_tokens)
            sums["no_answer"] += verdict.extracted is None
            sums["timeouts"] += verdict.reason == "timeout"
            sums["right"] += right
            sums["wrong"] += wrong
            sums["right_tokens"] += tokens * right
            sums["wrong_tokens"] += tokens * wrong
            if score.total is not None:
                sums["scored"] += 1
                sums["reward"] += score.total
                for name in terms:
                    sums[f"reward_{name}"] += score.terms[name] or 0.0
    return sums


def summarise(sums: Mapping[str, float]) -> dict[str, float]:
    """Means and shares from the sums of all processes."""
    rollouts, scored = max(sums["rollouts"], 1.0), max(sums["scored"], 1.0)
    right, wrong = sums["right"], sums["wrong"]
    rewards = {key: value / scored for key, value in sums.items() if key.startswith("reward")}
    return {
        **rewards,
        "accuracy": right / max(right + wrong, 1.0),
        "completion_tokens": sums["tokens"] / rollouts,
        **({"right_tokens": sums["right_tokens"] / right} if right else {}),
        **({"wrong_tokens": sums["wrong_tokens"] / wrong} if wrong else {}),
        "prompt_tokens": sums["prompt_tokens"] / rollouts,
        "tokens_sampled": sums["tokens"],
        "no_answer": sums["no_answer"] / rollouts,
        "timeouts": sums["timeouts"] / rollouts,
    }


COUNTED = (
    "rollouts",
    "tokens",
    "prompt_tokens",
    "no_answer",
    "timeouts",
    "right",
    "wrong",
    "right_tokens",
    "wrong_tokens",
    "scored",
    "reward",
)
