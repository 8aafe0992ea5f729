"""What a step's rollouts say of the policy, as sums that add up over processes, and the ratios made from them.

Every key is defined in `docs/metrics.md`; a test compares the two lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from open_rs.types import Group, Score


def count(groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> dict[str, float]:
    """Sums over this process's rollouts; sums of several processes may be added key by key."""
    sums: Counter[str] = Counter(groups=len(groups))
    for group, group_scores in zip(groups, scores, strict=True):
        sums.update(_count_group(group, group_scores))
        for rollout, verdict, score in zip(group.rollouts, group.verdicts, group_scores, strict=True):
            sums["rollouts"] += 1
            sums["tokens"] += len(rollout.tokens)
            sums["prompt_tokens"] += len(rollout.prompt_tokens)
            sums["truncated"] += rollout.finish == "length"
            sums["no_answer"] += verdict.extracted is None
            sums["unscorable"] += verdict.correct is None
            sums["timeouts"] += verdict.reason == "timeout"
            sums["correct"] += verdict.correct is True
            sums["right_tokens"] += len(rollout.tokens) * (verdict.correct is True)
            if score.total is not None:
                sums["scored"] += 1
                sums["reward"] += score.total
            for name, value in score.terms.items():
                sums[f"reward/{name}"] += value or 0.0
    return dict(sums)


def summarise(sums: Mapping[str, float]) -> dict[str, float]:
    """Means and shares from the sums of all processes."""
    rollouts, groups = max(sums["rollouts"], 1.0), max(sums["groups"], 1.0)
    scored = max(sums.get("scored", 0.0), 1.0)
    gradable = max(sums["rollouts"] - sums["unscorable"], 1.0)
    right, wrong = sums["correct"], sums["rollouts"] - sums["correct"]
    row = {
        "reward": sums.get("reward", 0.0) / scored,
        "accuracy": right / gradable,
        "completion_tokens": sums["tokens"] / rollouts,
        "right_tokens": sums["right_tokens"] / max(right, 1.0),
        "wrong_tokens": (sums["tokens"] - sums["right_tokens"]) / max(wrong, 1.0),
        "tokens_sampled": sums["tokens"],
        "prompt_tokens": sums["prompt_tokens"] / rollouts,
        **{key: sums[key] / rollouts for key in ("truncated", "no_answer", "unscorable", "timeouts")},
        **{key: sums.get(key, 0.0) / groups for key in ("all_right", "all_wrong", "no_signal")},
    }
    return row | {key: value / scored for key, value in sums.items() if key.startswith("reward/")}


def _count_group(group: Group, scores: Sequence[Score]) -> dict[str, int]:
    """Whether the group is all right, all wrong, or without signal: all scored rewards equal."""
    verdicts = {verdict.correct for verdict in group.verdicts}
    rewards = {score.total for score in scores if score.total is not None}
    return {"all_right": verdicts == {True}, "all_wrong": verdicts == {False}, "no_signal": len(rewards) < 2}
