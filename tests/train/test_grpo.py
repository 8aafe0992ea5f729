"""The objective's maths against formulas worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from open_rs.train.grpo import (
    WEIGHT_RULES,
    Objective,
    TokenTerms,
    Totals,
    advantages,
    k3,
    sampler_weights,
    standard_deviation,
    token_losses,
)

ADVANTAGES = {
    "group of two": ([1.0, 0.0], "group", False, [0.5 / (math.sqrt(0.5) + 1e-4), -0.5 / (math.sqrt(0.5) + 1e-4)]),
    "not scaled": ([1.0, 0.0, 0.0, 1.0], "none", False, [0.5, -0.5, -0.5, 0.5]),
    "scaled by the batch": ([1.0, 0.0], "batch", False, [0.5 / 2.0001, -0.5 / 2.0001]),
    "leave one out": ([3.0, 0.0, 0.0], "none", True, [3.0, -1.5, -1.5]),
    "odd group": ([1.0, 0.0, 0.5], "none", False, [0.5, -0.5, 0.0]),
    "group of one": ([1.0], "group", False, [0.0]),
    "empty group": ([], "group", True, []),
    "all equal, not a binary fraction": ([0.1, 0.1, 0.1], "group", True, [0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize(("rewards", "scale", "leave_one_out", "expected"), ADVANTAGES.values(), ids=ADVANTAGES.keys())
def test_advantages(rewards: list[float], scale: str, leave_one_out: bool, expected: list[float]) -> None:
    assert advantages(rewards, scale, 2.0, leave_one_out) == pytest.approx(expected, abs=1e-12)


def test_standard_deviation_from_sums_is_the_unbiased_one() -> None:
    values = torch.tensor([0.0, 1.0, 3.0, 7.0], dtype=torch.float64)
    assert standard_deviation(4, values.sum().item(), values.square().sum().item()) == pytest.approx(
        values.std().item()
    )
    assert standard_deviation(1, 5.0, 25.0) == 0.0


RULES = {"grpo": 1 / (6 * 4), "dapo": 1 / 60, "dr_grpo": 1 / (6 * 100), "release": 1 / (2 * 20)}


@pytest.mark.parametrize(("rule", "expected"), RULES.items(), ids=RULES.keys())
def test_weight_of_a_token(rule: str, expected: float) -> None:
    totals = Totals(groups=2, sequences=6, tokens=60, max_completion_length=100)
    assert WEIGHT_RULES[rule](4, 20, totals) == pytest.approx(expected)


def terms(ratio: float, advantage: float, **changes: object) -> tuple[torch.Tensor, TokenTerms]:
    """One token whose ratio to its old self is `ratio`."""
    one = torch.ones(1)
    logprobs = torch.tensor([-1.0], requires_grad=True)
    found = TokenTerms(
        advantages=one * advantage,
        weights=one,
        sequence=torch.zeros(1, dtype=torch.int64),
        sequence_tokens=one,
        sampler=one * math.nan,
        old=torch.tensor([-1.0 - math.log(ratio)]),
        reference=None,
    )
    return logprobs, replace(found, **changes)


CLIPPING = {  # ratio, advantage, delta, loss, gradient by the log-probability, low, high
    "inside": (1.1, 1.0, None, -1.1, -1.1, False, False),
    "above, good": (1.5, 1.0, None, -1.3, 0.0, False, True),
    "above, bad: not clipped": (1.5, -1.0, None, 1.5, 1.5, False, False),
    "above delta, bad": (5.0, -1.0, 3.0, 3.0, 0.0, False, False),
    "below, good: not clipped": (0.5, 1.0, None, -0.5, -0.5, False, False),
    "below, bad": (0.5, -1.0, None, 0.8, 0.0, True, False),
}


@pytest.mark.parametrize(
    ("ratio", "advantage", "delta", "loss", "slope", "low", "high"), CLIPPING.values(), ids=CLIPPING.keys()
)
def test_clipping(
    ratio: float, advantage: float, delta: float | None, loss: float, slope: float, low: bool, high: bool
):
    logprobs, token = terms(ratio, advantage)
    found = token_losses(logprobs, token, Objective(epsilon_low=0.2, epsilon_high=0.3, delta=delta))
    (gradient,) = torch.autograd.grad(found.loss.sum(), logprobs)
    assert found.loss.item() == pytest.approx(loss)
    assert gradient.item() == pytest.approx(slope)
    assert (found.clipped_low.item(), found.clipped_high.item()) == (low, high)


def test_cispo_keeps_the_gradient_of_a_clipped_token() -> None:
    logprobs, token = terms(9.0, 1.0)
    found = token_losses(logprobs, token, Objective(name="cispo", epsilon_high=5.0))
    (gradient,) = torch.autograd.grad(found.loss.sum(), logprobs)
    assert gradient.item() == pytest.approx(-5.0)
    assert found.clipped_high.item()


def test_on_policy_the_ratio_is_one_and_the_gradient_is_not_zero() -> None:
    logprobs, token = terms(7.0, 2.0, old=None)
    found = token_losses(logprobs, token, Objective())
    (gradient,) = torch.autograd.grad(found.loss.sum(), logprobs)
    assert found.ratio.item() == 1.0
    assert gradient.item() == pytest.approx(-2.0)


def test_sequence_level_ratio_is_the_geometric_mean_of_the_tokens_ratios() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    token = TokenTerms(
        advantages=torch.ones(3),
        weights=torch.ones(3),
        sequence=torch.tensor([0, 0, 1]),
        sequence_tokens=torch.tensor([2.0, 2.0, 1.0]),
        sampler=torch.full((3,), math.nan),
        old=torch.tensor([-1.1, -2.3, -3.0]),
        reference=None,
    )
    found = token_losses(logprobs, token, Objective(level="sequence"))
    torch.testing.assert_close(found.ratio, torch.tensor([math.exp(0.2), math.exp(0.2), 1.0]))


def test_kl_is_weighted_by_beta_and_zero_where_policy_and_reference_agree() -> None:
    logprobs, token = terms(1.0, 0.0, reference=torch.tensor([-1.5]))
    found = token_losses(logprobs, token, Objective(beta=0.1))
    assert found.kl.item() == pytest.approx(math.exp(-0.5) + 0.5 - 1)
    assert found.loss.item() == pytest.approx(0.1 * found.kl.item())
    assert k3(torch.zeros(1)).item() == 0.0


def test_unbiased_kl_has_the_gradient_of_the_reverse_kl() -> None:
    """Over the whole distribution, `sum_i p_i grad(k3_i * ratio_i)` is the gradient of KL(p || q) by the logits."""
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.1, 0.5, 0.0], dtype=torch.float64).log_softmax(0)
    logprobs = logits.log_softmax(0)
    exact = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)[0]
    token = TokenTerms(
        advantages=torch.zeros(3, dtype=torch.float64),
        weights=logprobs.detach().exp(),
        sequence=torch.arange(3),
        sequence_tokens=torch.ones(3, dtype=torch.float64),
        sampler=torch.full((3,), math.nan, dtype=torch.float64),
        old=None,
        reference=reference,
    )
    found = token_losses(logprobs, token, Objective(beta=1.0, unbiased_kl=True))
    torch.testing.assert_close(torch.autograd.grad((found.loss * token.weights).sum(), logits)[0], exact)


def test_sampler_weight_is_cut_at_the_cap_and_one_where_nothing_is_known() -> None:
    learner = torch.tensor([-1.0, -1.0, -1.0, -1.0])
    sampler = torch.tensor([-1.0, -3.0, -0.5, math.nan])
    expected = torch.tensor([1.0, 2.0, math.exp(-0.5), 1.0])
    torch.testing.assert_close(sampler_weights(learner, sampler, 2.0), expected)
    torch.testing.assert_close(sampler_weights(learner, sampler, None), torch.ones(4))


def test_kl_does_not_carry_the_sampler_weight() -> None:
    logprobs, token = terms(1.0, 0.0, reference=torch.tensor([-2.0]), sampler=torch.tensor([-9.0]))
    with_weight = token_losses(logprobs, token, Objective(beta=1.0, sampler_cap=2.0)).loss
    without = token_losses(logprobs, token, Objective(beta=1.0, sampler_cap=None)).loss
    torch.testing.assert_close(with_weight, without)
