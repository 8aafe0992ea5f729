"""The sampling step: stable noise, exact truncation, and no word of weight zero."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from open_rs.rollout.engine import Sampling
from open_rs.rollout.sampling import row_key, sample, uniform

MASK = (1 << 64) - 1


def splitmix64_uniform(key: int, position: int) -> float:
    """The published generator in plain integers."""
    state = (key + (position + 1) * 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return ((state ^ (state >> 31)) >> 11) * 2.0**-53


def test_noise_is_splitmix64_to_the_last_bit() -> None:
    keys = [row_key(Sampling(1, seed=s), f"p{s}", s) for s in range(50)]
    numbers = uniform(torch.tensor(keys), torch.arange(50)).tolist()
    assert numbers == [splitmix64_uniform(key & MASK, position) for position, key in enumerate(keys)]


def test_noise_is_uniform_along_positions_and_along_keys() -> None:
    along_positions = uniform(torch.full((20_000,), row_key(Sampling(1), "p", 0)), torch.arange(20_000))
    keys = torch.tensor([row_key(Sampling(1), "p", number) for number in range(20_000)])
    for numbers in (along_positions, uniform(keys, torch.zeros_like(keys))):
        assert kstest(numbers.numpy(), "uniform").pvalue > 1e-3
        assert abs(torch.corrcoef(torch.stack((numbers[1:], numbers[:-1])))[0, 1]) < 0.03


@pytest.mark.parametrize(
    "one, other",
    [
        (("p", 0, 0, 0), ("p", 1, 0, 0)),
        (("p", 0, 0, 0), ("q", 0, 0, 0)),
        (("p", 0, 1, 0), ("p", 0, 0, 1)),
        (("1/p", 1, 0, 0), ("p", 1, 0, 0)),
        (("p", 11, 0, 1), ("p", 1, 0, 11)),
    ],
    ids=str,
)
def test_keys_differ_where_any_part_differs(one: tuple, other: tuple) -> None:
    keys = [row_key(Sampling(1, seed=seed, step=step), name, number) for name, number, seed, step in (one, other)]
    assert keys[0] != keys[1]


def test_a_key_never_changes_between_releases() -> None:
    assert row_key(Sampling(1, seed=42, step=7), "math-1", 3) == 8931311377230227135


def draw(logits: list[float], count: int = 4000, **settings: float) -> list[int]:
    rows = torch.tensor(logits).expand(count, -1)
    keys = torch.full((count,), 12345)
    return sample(rows, keys, torch.arange(count), Sampling(1, **settings))[0].tolist()  # pyright: ignore


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 9}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.51}, {0, 1}),
        ({"top_p": 0.8}, {0, 1}),
        ({"top_p": 0.81}, {0, 1, 2}),
        ({"top_p": 1e-9}, {0}),
        ({"min_p": 0.3}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "top_p": 0.85}, {0, 1, 2}),  # of the three: 0.526, 0.316, 0.158
        ({"top_k": 3, "top_p": 0.84}, {0, 1}),
        ({"temperature": 0.0}, {0}),
    ],
    ids=str,
)
def test_truncation_keeps_exactly_the_words_of_its_definition(settings: dict[str, float], kept: set[int]) -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    assert set(draw(probabilities.log().tolist(), **settings)) == kept


def test_logprob_is_of_the_untruncated_distribution_at_the_sampling_temperature() -> None:
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * 3
    keys = torch.arange(64)
    tokens, logprobs = sample(logits, keys, keys, Sampling(1, temperature=0.7, top_p=0.9, top_k=40))
    expected = (logits / 0.7).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocabulary", [1, 2, 127, 128, 129, 1000])
def test_no_word_of_weight_zero_is_drawn_for_any_vocabulary(vocabulary: int) -> None:
    logits = torch.full((512, vocabulary), float("-inf"))
    logits[:, vocabulary // 2] = 0.0
    tokens, logprobs = sample(logits, torch.arange(512), torch.arange(512), Sampling(1))
    assert tokens.eq(vocabulary // 2).all() and logprobs.eq(0).all()


def test_extreme_noise_stays_inside_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    from open_rs.rollout import sampling as module

    logits = torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    logits[:, 400:] = float("-inf")
    for number, expected in ((0.0, 0), (1.0 - 2.0**-53, 399), (1.0, 399)):
        monkeypatch.setattr(module, "uniform", lambda keys, _, u=number: torch.full(keys.shape, u, dtype=torch.float64))
        assert sample(logits, torch.arange(2), torch.arange(2), Sampling(1))[0].tolist() == [expected] * 2


def test_one_row_draws_the_same_word_in_any_batch() -> None:
    logits = torch.randn(64, 1000, generator=torch.Generator().manual_seed(2))
    keys = torch.arange(64) * 7919
    for settings in (
        Sampling(1),
        Sampling(1, top_p=0.9),
        Sampling(1, top_k=50),
        Sampling(1, temperature=0.3, min_p=0.05),
    ):
        together = sample(logits, keys, keys, settings)
        for row in range(64):
            alone = sample(logits[row : row + 1], keys[row : row + 1], keys[row : row + 1], settings)
            assert alone[0] == together[0][row] and alone[1] == together[1][row]
