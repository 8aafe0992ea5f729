"""Against a real `vllm serve` on loopback: the contract, weights by directory, the endpoint engine, its death."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from open_rs.config.schema import RolloutConfig
from open_rs.models import CausalLM
from open_rs.rollout import Engine, Request, Sampling, vllm_server
from open_rs.rollout.endpoint import EndpointEngine
from open_rs.rollout.probe import StaleWeightsError
from open_rs.rollout.vllm import MAX_TEMPERATURE
from open_rs.rollout.vllm_server import VllmServerEngine
from open_rs.types import Rollout, UserError
from rollout.contract import (
    CONTEXT,
    EngineContract,
    assert_greedy,
    assert_logprobs,
    prompt_of,
    sample_all,
    tiny_model,
)
from rollout.vllm_serve import Served, serve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

GREEDY = Sampling(max_tokens=16, temperature=0.0)
REQUESTS = [Request(prompt_of(length), (0, 1)) for length in (3, 9, 40)]


@pytest.fixture(scope="module")
def policy() -> CausalLM:
    model = tiny_model(num_heads=2)
    model.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return model


@pytest.fixture(scope="module")
def server(policy: CausalLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    policy.save_pretrained(directory / "model")
    with serve(directory / "model", directory, "--logprobs-mode", "processed_logprobs") as served:
        yield served


def engine_of(server: Served, **vllm: Any) -> VllmServerEngine:
    settings = {"vllm": {"server_url": server.url, **vllm}, "endpoint": {"max_retries": 2}}
    return VllmServerEngine(RolloutConfig.model_validate(settings), first_delay_seconds=0.01)


def endpoint_of(server: Served, **endpoint: Any) -> EndpointEngine:
    settings = {"url": f"{server.url}/v1", "max_retries": 2, **endpoint}
    return EndpointEngine(RolloutConfig.model_validate({"endpoint": settings}), first_delay_seconds=0.01)


class TestVllmServerContract(EngineContract):
    hottest = MAX_TEMPERATURE
    chi_square_samples = 300

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, policy: CausalLM) -> CausalLM:
        return policy

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM, server: Served) -> Iterator[Engine]:
        engine = engine_of(server, weight_directory=str(server.weights))
        engine.load(model, 0)
        yield engine
        engine.close()
        engine.close()

    def test_logprobs_are_taken_before_truncation(self, engine: Engine, model: CausalLM) -> None:
        """Processed log-probabilities are taken after it, so this server gives none rather than wrong ones."""
        rollouts = list(engine.generate([Request(prompt_of(6), (0, 1))], Sampling(max_tokens=4, top_p=0.5, top_k=5)))
        assert [rollout.logprobs for rollout in rollouts] == [None, None]


def test_the_endpoint_engine_keeps_the_servers_token_ids(server: Served, policy: CausalLM) -> None:
    for rollout in endpoint_of(server).generate(REQUESTS, GREEDY):
        assert_greedy(policy, rollout)
        assert rollout.logprobs is None


def test_a_chat_completion_is_rendered_by_the_server(server: Served, policy: CausalLM) -> None:
    request = Request(prompt_of(9), (0,))
    [rollout] = endpoint_of(server, api="chat").generate([request], GREEDY)
    rendered = AutoTokenizer.from_pretrained(server.model).apply_chat_template(list(request.prompt.messages))
    assert list(rollout.prompt_tokens) == rendered["input_ids"]
    assert_greedy(policy, rollout)


def test_a_model_that_the_server_does_not_hold(server: Served) -> None:
    with pytest.raises(UserError, match="does not hold `another`; it holds `tiny`"):
        endpoint_of(server, model="another").load(None, 0)


def test_a_prompt_over_the_servers_limit_is_refused_in_its_words(server: Served) -> None:
    with pytest.raises(UserError, match=rf"refused after 0 of 1 samples.*maximum context length is {CONTEXT}"):
        list(endpoint_of(server).generate([Request(prompt_of(CONTEXT + 5), (0,))], GREEDY))


@torch.no_grad()
def train_a_little(model: CausalLM) -> None:
    """Move every weight, as an optimiser step would."""
    for weight in model.module.parameters():
        weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())) * 0.1


def test_weights_reach_the_server_through_the_directory(server: Served, policy: CausalLM) -> None:
    engine = engine_of(server, weight_directory=str(server.weights))
    engine.load(policy, 0)
    train_a_little(policy)
    engine.load(policy, 1)
    rollouts = sample_all(engine, REQUESTS, GREEDY)
    assert_logprobs(policy, rollouts.values(), 1.0, 1e-4)
    assert {rollout.policy_version for rollout in rollouts.values()} == {1}
    assert list(server.weights.iterdir()) == [], "weights of earlier versions were left behind"


def test_a_server_without_a_directory_must_hold_the_policys_weights(server: Served, policy: CausalLM) -> None:
    engine = engine_of(server)
    engine.load(policy, 1)
    with pytest.raises(UserError, match="weight_directory: not set"):
        engine.load(policy, 2)
    train_a_little(policy)
    with pytest.raises(StaleWeightsError, match="does not sample from the policy"):
        engine_of(server).load(policy, 1)


def test_a_head_that_was_left_out_is_caught(server: Served, policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(server, weight_directory=str(server.weights))
    monkeypatch.setattr(vllm_server, "write_weights", lambda model, directory: model.save_pretrained(directory))
    with pytest.raises(StaleWeightsError, match="does not sample from the policy"):
        engine.load(policy, 3)


def test_a_server_that_dies_in_the_middle_leaves_what_it_finished(server: Served, policy: CausalLM) -> None:
    """The last test: it ends the server."""
    engine = engine_of(server, weight_directory=str(server.weights))
    engine.load(policy, 4)
    kept: list[Rollout] = []
    with pytest.raises(UserError, match=r"no answer .* after \d+ of 400 samples; those are kept"):
        for rollout in engine.generate([Request(prompt_of(5), tuple(range(400)))], Sampling(max_tokens=100)):
            kept.append(rollout)
            if len(kept) == 8:
                server.kill()
    assert 8 <= len(kept) < 400
    with pytest.raises(UserError, match="no answer"):
        engine_of(server).load(policy, 4)
