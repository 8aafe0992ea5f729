"""Which rollouts become rows, with which advantage and weight, and what is counted on the way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from open_rs.config.schema import AlgorithmConfig
from open_rs.train.batch import build_batch
from open_rs.types import Score, UserError
from train.tiny_policy import LIMIT, REWARDS, group, recorded, recorded_batch, rollout


def build(groups: Any, rewards: Any, **algorithm: Any):
    scores = [[Score(reward, {}) for reward in row] for row in rewards]
    return build_batch(groups, scores, AlgorithmConfig(**algorithm), max_completion_length=LIMIT)


def sized(name: str, lengths: list[int], correct: Any = None) -> Any:
    rollouts = [rollout(name, g, 0, tokens=length) for g, length in enumerate(lengths)]
    return group(name, rollouts, correct or [None] * len(lengths))


def test_a_row_is_prompt_then_completion_then_padding() -> None:
    one = rollout("a", 0, 0, tokens=3)
    batch = build([group("a", [one, rollout("a", 1, 0, tokens=9)], [True, False])], [[1.0, 0.0]])
    prompt, length = len(one.prompt_tokens), len(one.prompt_tokens) + 3
    assert batch.lengths.tolist() == [length, prompt + 9]
    assert tuple(batch.tokens[0, :length].tolist()) == one.prompt_tokens + one.tokens
    assert batch.trained[0].nonzero().squeeze(1).tolist() == list(range(prompt, length))
    torch.testing.assert_close(batch.sampler_logprobs[0, prompt:length], torch.tensor(one.logprobs))
    assert batch.sampler_logprobs[0, :prompt].isnan().all()


def test_groups_without_signal_carry_no_row_but_are_counted_by_the_weights() -> None:
    groups = [sized("a", [2, 4]), sized("b", [3, 5])]
    expected = {"grpo": [1 / 8, 1 / 16], "dapo": [1 / 14, 1 / 14], "dr_grpo": [1 / 48] * 2, "release": [1 / 12] * 2}
    for rule, weights in expected.items():
        batch = build(groups, [[1.0, 0.0], [1.0, 1.0]], loss_type=rule)
        assert batch.weights.tolist() == pytest.approx(weights), rule


def test_with_a_kl_term_every_scored_rollout_carries_a_row() -> None:
    assert len(recorded_batch(AlgorithmConfig(beta=0.1)).lengths) == 20
    assert len(recorded_batch(AlgorithmConfig(beta=0.0)).lengths) == 12


def test_a_rollout_at_the_mean_of_its_group_carries_no_row() -> None:
    batch = build([sized("a", [2, 2, 2])], [[1.0, 0.5, 0.0]])
    assert batch.advantages.tolist() == pytest.approx([2 / 1.0002 / 2, -2 / 1.0002 / 2], rel=1e-3)


def test_unscorable_rollouts_count_as_never_sampled() -> None:
    with_it = build([sized("a", [2, 4, 3])], [[1.0, 0.0, None]], loss_type="grpo")
    without = build([sized("a", [2, 4])], [[1.0, 0.0]], loss_type="grpo")
    torch.testing.assert_close(with_it.weights, without.weights)
    torch.testing.assert_close(with_it.advantages, without.advantages)
    assert with_it.counts["unscorable"] == pytest.approx(1 / 3)


def test_masked_truncated_completions_count_as_sequences_but_not_as_tokens() -> None:
    groups, rewards = [sized("a", [2, LIMIT, 4])], [[1.0, 0.0, 0.0]]
    by_sequence = build(groups, rewards, loss_type="grpo", mask_truncated_completions=True)
    by_token = build(groups, rewards, loss_type="dapo", mask_truncated_completions=True)
    assert by_sequence.weights.tolist() == pytest.approx([1 / 6, 1 / 12])
    assert by_token.weights.tolist() == pytest.approx([1 / 6, 1 / 6])
    assert by_token.counts["truncated"] == pytest.approx(1 / 3)


def test_batch_scaling_divides_by_the_spread_of_all_rewards() -> None:
    groups, scores = recorded(REWARDS)
    batch = build_batch(groups, scores, AlgorithmConfig(scale_rewards="batch"), max_completion_length=LIMIT)
    spread = torch.tensor(REWARDS, dtype=torch.float64).std().item()
    assert batch.advantages[0].item() == pytest.approx(0.5 / (spread + 1e-4))


def test_equal_prompts_stay_apart() -> None:
    groups = [sized("a", [2, 4]), sized("a", [3, 5])]
    batch = build(groups, [[1.0, 0.0], [4.0, 0.0]], scale_rewards="none")
    assert batch.advantages.tolist() == [0.5, -0.5, 2.0, -2.0]


SHAPES = {
    "odd group": ([[1.0, 0.0, 0.0]], 3),
    "group of one": ([[1.0]], 0),
    "all equal": ([[0.3, 0.3, 0.3]], 0),
    "nobody scored": ([[None, None]], 0),
    "no group at all": ([], 0),
    "unequal groups": ([[1.0, 0.0], [1.0, 0.0, 0.0]], 5),
}


@pytest.mark.parametrize(("rewards", "rows"), SHAPES.values(), ids=SHAPES.keys())
def test_odd_shapes_are_data(rewards: Any, rows: int) -> None:
    batch = recorded_batch(rewards=rewards)
    assert batch.tokens.shape[0] == len(batch.weights) == rows
    assert all(math.isfinite(value) for value in batch.counts.values())


def test_an_empty_completion_is_data() -> None:
    batch = build([sized("a", [0, 4])], [[0.0, 1.0]], loss_type="grpo")
    assert batch.lengths.tolist() == [len(rollout("a", 0, 0).prompt_tokens) + 4]
    assert batch.weights.tolist() == pytest.approx([1 / 8])


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused(reward: float) -> None:
    with pytest.raises(UserError, match=r"problem 0`, sample 1; a reward function must return a finite number"):
        recorded_batch(rewards=[[0.0, reward]])


def test_groups_without_signal_are_told_apart() -> None:
    groups = [
        sized("a", [2, 2], [True, True]),
        sized("b", [2, 2], [False, False]),
        sized("c", [2, 2], [True, False]),
        sized("d", [2, 2], [True, False]),
    ]
    counts = build(groups, [[1.0, 1.0], [0.0, 0.0], [0.5, 0.5], [1.0, 0.0]]).counts
    assert counts["groups_without_signal"] == 0.75
    assert counts["groups_all_right"] == counts["groups_all_wrong"] == counts["groups_silent_otherwise"] == 0.25
