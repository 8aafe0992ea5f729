"""The probe's judgement: what it takes for rounding, and what for stale weights."""

from __future__ import annotations

import pytest

from open_rs.rollout.probe import NUM_GREEDY_TOKENS, NUM_PROMPT_TOKENS, Reading, StaleWeightsError, check, probe_prompt
from open_rs.types import UserError

TOKENS = (4, 5, 6)


def reading(sampler: float, learner: float, tokens: tuple[int, ...] = TOKENS) -> Reading:
    return Reading(tokens, (sampler,) * 3, (learner,) * 3)


@pytest.mark.parametrize(
    ("dtype", "gap", "stale"),
    [
        ("float32", 1e-5, False),
        ("float32", 2e-3, True),
        ("bfloat16", 2e-2, False),
        ("bfloat16", 0.2, True),
        ("float32", float("nan"), True),
    ],
)
def test_a_gap_that_rounding_does_not_explain_is_stale(dtype: str, gap: float, stale: bool) -> None:
    probed = reading(-1.0, -1.0 - gap)
    if not stale:
        check(probed, None, dtype, version=3)
        return
    with pytest.raises(StaleWeightsError, match=r"\(version 3\).*nats a token from the learner's.*engine: local"):
        check(probed, None, dtype, version=3)


def test_an_engine_that_stands_still_while_the_learner_moves_is_stale_below_the_tolerance() -> None:
    before, after = reading(-1.0, -1.0), reading(-1.0, -1.01)
    check(after, None, "bfloat16", version=4)
    with pytest.raises(StaleWeightsError, match="kept its old weights"):
        check(after, before, "bfloat16", version=4)


@pytest.mark.parametrize(
    "after",
    [reading(-1.0, -1.0), reading(-1.0, -1.0001), reading(-1.001, -1.01), reading(-1.0, -1.01, tokens=(4, 5, 7))],
    ids=["nobody moved", "an update that rounds away", "both moved", "other tokens were chosen"],
)
def test_an_engine_that_follows_is_believed(after: Reading) -> None:
    assert check(after, reading(-1.0, -1.0), "bfloat16", version=4) is None  # it raises where it does not believe


def test_stale_weights_are_a_failure_that_a_user_can_mend() -> None:
    assert issubclass(StaleWeightsError, UserError)


class Words:
    """A tokenizer of one word per letter."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.mark.parametrize(("room", "length"), [(4096, NUM_PROMPT_TOKENS), (64, 64 - NUM_GREEDY_TOKENS), (8, 1)])
def test_the_probe_prompt_leaves_room_for_its_answer(room: int, length: int) -> None:
    assert len(probe_prompt(Words(), room)) == length
