"""A scripted engine answers what it was told, within the limits that every engine obeys."""

from __future__ import annotations

import pytest

from open_rs.config.schema import RolloutConfig
from open_rs.prompts import Prompt
from open_rs.rollout import Engine, Request, Sampling, build_engine
from open_rs.rollout.local import LocalEngine
from open_rs.rollout.scripted import ScriptedEngine
from open_rs.types import UserError
from rollout.contract import EngineManners, prompt_of, tiny_tokenizer


def words(prompt: Prompt, number: int) -> str:
    """Up to twenty words that differ from sample to sample."""
    return " ".join(f"w{4 + (7 * number + 3 * place) % 190}" for place in range(1 + 7 * number % 20))


class TestScriptedManners(EngineManners):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        return ScriptedEngine(words, tiny_tokenizer())


def test_samples_walk_through_the_script_and_start_over() -> None:
    engine = ScriptedEngine({"p3": ["four", "five"]})
    engine.load(None, 9)
    rollouts = list(engine.generate([Request(prompt_of(3), (0, 1, 2, 5))], Sampling(max_tokens=50)))
    assert [rollout.text for rollout in rollouts] == ["four", "five", "four", "five"]
    assert {(rollout.finish, rollout.policy_version) for rollout in rollouts} == {("stop", 9)}


def test_a_function_can_be_the_script() -> None:
    engine = ScriptedEngine(lambda prompt, number: f"{prompt.problem_id} {number}")
    [rollout] = engine.generate([Request(prompt_of(3), (4,))], Sampling(max_tokens=50))
    assert rollout.text == "p3 4"


@pytest.mark.parametrize(
    "max_tokens, tokens, text, finish",
    [(3, (5, 6, 1), "w5 w6", "stop"), (2, (5, 6), "w5 w6", "length"), (1, (5,), "w5", "length")],
)
def test_texts_are_tokenised_stopped_and_cut(max_tokens: int, tokens: tuple[int, ...], text: str, finish: str) -> None:
    engine = ScriptedEngine({"p3": ["w5 w6"]}, tiny_tokenizer(), logprob=-0.5)
    [rollout] = engine.generate([Request(prompt_of(3), (0,))], Sampling(max_tokens=max_tokens))
    assert (rollout.tokens, rollout.text, rollout.finish) == (tokens, text, finish)
    assert rollout.logprobs == (-0.5,) * len(tokens)


def test_logprobs_can_be_absent_as_from_an_endpoint() -> None:
    [rollout] = ScriptedEngine({"p3": ["x"]}, logprob=None).generate(
        [Request(prompt_of(3), (0,))], Sampling(max_tokens=9)
    )
    assert rollout.logprobs is None


def test_an_unknown_problem_is_named() -> None:
    with pytest.raises(UserError, match="p3"):
        list(ScriptedEngine({}).generate([Request(prompt_of(3), (0,))], Sampling(max_tokens=1)))


def test_the_recipe_names_the_engine() -> None:
    engine = build_engine(RolloutConfig(max_concurrent=3, cache_tokens=500))
    assert isinstance(engine, LocalEngine) and (engine.max_concurrent, engine.cache_tokens) == (3, 500)
    with pytest.raises(UserError, match="ScriptedEngine"):
        build_engine(RolloutConfig(engine="scripted"))
