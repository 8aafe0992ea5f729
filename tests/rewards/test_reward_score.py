"""How terms add up, what stops a run, and the bridge to TRL."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from open_rs.config.schema import RewardConfig, RewardTermConfig
from open_rs.rewards import as_trl, build_terms, from_trl, score
from open_rs.rewards.score import Term
from open_rs.types import Group, Problem, Rollout, UserError, Verdict

TEXTS = ("so\n</think>\n\\boxed{2}", "so \\boxed{3}")
GROUP = Group(
    Problem("p", "1+1?", "2", "test", {"level": "Easy"}),
    tuple(Rollout("p", n, (), (1, 2, 3), None, text, "stop", 0) for n, text in enumerate(TEXTS)),
    (Verdict(True, "2", "equal"), Verdict(False, "3", "different")),
)


def brevity(group: Group, *, limit: int = 5) -> list[float | None]:
    return [float(len(rollout.text) < limit) for rollout in group.rollouts]


def trl_style(completions: list[Any], solution: list[str], level: list[str], **columns: Any) -> list[float | None]:
    assert columns["prompts"][0][0]["role"] == "user"
    assert columns["completion_ids"] == [[1, 2, 3], [1, 2, 3]]
    return [float(gold in message[0]["content"]) for message, gold in zip(completions, solution, strict=True)]


def recipe(*names: str, **params: Any) -> RewardConfig:
    return RewardConfig(terms=tuple(RewardTermConfig(name=name, weight=2.0, params=params) for name in names))


def test_total_is_the_weighted_sum_and_the_breakdown_is_unweighted() -> None:
    terms = build_terms(RewardConfig())  # format weighs 1, accuracy 2
    scores = score(GROUP, terms)
    assert [one.total for one in scores] == [3.0, 0.0]
    assert scores[0].terms == {"format": 1.0, "accuracy": 1.0}


def test_nobody_is_scored_where_one_term_gives_none() -> None:
    unscorable = Group(GROUP.problem, GROUP.rollouts, (Verdict(None, None, "gold_unparsable"),) * 2)
    scores = score(unscorable, build_terms(RewardConfig()))
    assert [one.total for one in scores] == [None, None]
    assert scores[0].terms == {"format": 1.0, "accuracy": None}


def test_a_custom_reward_is_named_by_module_and_function() -> None:
    (term,) = build_terms(recipe("test_reward_score:brevity", limit=14))
    assert [one.total for one in score(GROUP, [term])] == [0.0, 2.0]


def test_a_reward_written_for_trl_works_by_its_name_alone() -> None:
    (term,) = build_terms(recipe("test_reward_score:trl_style"))
    assert [one.total for one in score(GROUP, [term])] == [2.0, 0.0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe("code"), "sandbox"),
        (recipe("code_format"), "sandbox"),
        (recipe("acuracy"), "did you mean `accuracy`"),
        (recipe("cosine", max_len=1000), "no parameter `max_len`"),
        (recipe("accuracy", x=1), "no parameter `x`"),
        (recipe("nowhere:f"), "can't be imported"),
        (recipe("math:nothing"), "can't be imported"),
        (recipe("math:pi"), "not a function"),
        (recipe("accuracy", "accuracy"), "twice"),
        (RewardConfig(terms=()), "nothing to learn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_recipe_is_refused_before_anything_is_sampled(config: RewardConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_terms(config)


def raises(group: Group) -> list[float]:
    raise KeyError("answer")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, "raised KeyError"),
        (lambda group: [1.0], "1 values for 2"),
        (lambda group: [1.0, math.nan], "nan"),
        (lambda group: [1.0, math.inf], "inf"),
        (lambda group: [1.0, "good"], "good"),
        (lambda group: None, "NoneType"),
    ],
    ids=["raises", "length", "nan", "inf", "text", "none"],
)
def test_a_broken_reward_stops_the_run_with_its_name(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        score(GROUP, [Term("mine", 1.0, function)])
    assert "`mine`" in str(caught.value)
    assert "`p`" in str(caught.value)


def test_our_rewards_speak_trl() -> None:
    chat = [[{"role": "assistant", "content": text}] for text in TEXTS]
    accuracy = as_trl("accuracy")
    assert accuracy.__name__ == "accuracy"
    assert accuracy(completions=chat, solution=["2", "2"], prompts=["a", "a"]) == [1.0, 0.0]
    assert accuracy(list(TEXTS), ["2", "3"]) == [1.0, 1.0]
    assert accuracy(chat, ["\\frac{1}{", "2"]) == [None, 0.0]
    assert as_trl("format")(chat) == [1.0, 0.0]
    assert as_trl("accuracy", reasoning_open=True)(chat, ["2", "3"]) == [1.0, 0.0]


def test_group_rewards_in_trl_see_one_group_per_prompt() -> None:
    length = as_trl("length")
    ids = [[0] * tokens for tokens in (1, 3, 5, 9)]
    prompts = ["a", "a", "b", "b"]
    assert length(["\\boxed{2}"] * 4, ["2"] * 4, prompts=prompts, completion_ids=ids) == [0.5, -0.5, 0.5, -0.5]
    with pytest.raises(UserError, match="completion_ids"):
        length(["\\boxed{2}"], ["2"])


@pytest.mark.parametrize("name", ["code", "nonsense"])
def test_trl_gets_no_reward_that_we_refuse(name: str) -> None:
    with pytest.raises(UserError, match=name):
        as_trl(name)


async def slow(completions: list[Any], **columns: Any) -> list[float | None]:
    await asyncio.sleep(0)
    return [float(len(message[0]["content"])) for message in completions]


async def fails(completions: list[Any], **columns: Any) -> list[float | None]:
    raise ConnectionError("judge is down")


def test_async_rewards_work_inside_and_outside_an_event_loop() -> None:
    reward = from_trl(slow)
    expected = [float(len(text)) for text in TEXTS]

    async def inside() -> list[float | None]:
        return reward(GROUP)

    assert reward(GROUP) == expected
    assert asyncio.run(inside()) == expected


def test_an_async_reward_that_fails_is_named() -> None:
    async def inside() -> None:
        score(GROUP, [Term("judge", 1.0, from_trl(fails))])

    with pytest.raises(UserError, match=r"`judge`.*judge is down"):
        asyncio.run(inside())
