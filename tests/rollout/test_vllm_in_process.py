"""vLLM inside this process keeps the engine contract, follows the policy, and is caught where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from open_rs.config.schema import LoraConfig, RolloutConfig
from open_rs.models import CausalLM, _add_adapter, wrap
from open_rs.rollout import Engine, Request, Sampling
from open_rs.rollout import vllm as vllm_room
from open_rs.rollout.probe import StaleWeightsError
from open_rs.rollout.vllm import MAX_TEMPERATURE, VllmEngine
from open_rs.types import UserError
from rollout.contract import (
    CONTEXT,
    Architecture,
    EngineContract,
    assert_greedy,
    assert_logprobs,
    prompt_of,
    sample_all,
)
from rollout.contract import tiny_model as tiny_model_with_small_heads

pytestmark = pytest.mark.vllm

GREEDY = Sampling(max_tokens=16, temperature=0.0)
REQUESTS = [Request(prompt_of(length), (0, 1)) for length in (3, 9, 40)]
LONG_PROMPT = [Request(prompt_of(CONTEXT - 4), (0,))]


def tiny_model(
    architecture: Architecture = "qwen2", dtype: torch.dtype = torch.float32, spread: float = 0.2
) -> CausalLM:
    """vLLM's attention on a CPU knows no heads smaller than 32."""
    return tiny_model_with_small_heads(architecture, dtype, spread, num_heads=2)


def engine_of(model: CausalLM, **settings: Any) -> VllmEngine:
    engine = VllmEngine(RolloutConfig.model_validate(settings))
    engine.load(model, 0)
    return engine


@torch.no_grad()
def train_a_little(model: CausalLM, size: float = 0.02) -> None:
    """Move every weight, as an optimiser step would."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.module.parameters():
        weight += torch.randn(weight.shape, generator=generator).to(weight) * size


class TestVllmContract(EngineContract):
    hottest = MAX_TEMPERATURE

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> CausalLM:
        return tiny_model()

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM) -> Iterator[Engine]:
        engine = engine_of(model)
        yield engine
        engine.close()
        engine.close()


@pytest.fixture
def model() -> CausalLM:
    return tiny_model()


@pytest.fixture
def engine(model: CausalLM) -> Iterator[VllmEngine]:
    engine = engine_of(model)
    yield engine
    engine.close()


def test_samples_follow_the_policy_through_an_update(engine: VllmEngine, model: CausalLM) -> None:
    before = sample_all(engine, REQUESTS, GREEDY)
    train_a_little(model, 0.1)
    engine.load(model, 1)
    after = sample_all(engine, REQUESTS, GREEDY)
    assert before != after
    assert {rollout.policy_version for rollout in after.values()} == {1}
    for rollout in after.values():
        assert_greedy(model, rollout)
    assert_logprobs(model, after.values(), 1.0, 1e-4)


def test_adapters_are_merged_on_the_way(model: CausalLM) -> None:
    adapted = wrap(_add_adapter(model.module, LoraConfig(rank=4)), model.tokenizer, "adapted")
    engine = engine_of(adapted)
    for name, weight in adapted.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    engine.load(adapted, 1)
    rollouts = sample_all(engine, REQUESTS, GREEDY)
    engine.close()
    assert_logprobs(adapted, rollouts.values(), 1.0, 1e-4)


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_other_architectures_and_bf16_pass_the_probe(architecture: Architecture) -> None:
    model = tiny_model(architecture, torch.bfloat16, spread=0.05)
    engine = engine_of(model)
    rollouts = sample_all(engine, REQUESTS, GREEDY)
    engine.close()
    assert_logprobs(model, rollouts.values(), 1.0, 2e-2)


def send_nothing(llm: Any, model: CausalLM, num_workers: int) -> None:
    """A hand-over that silently does not happen."""


def send_all_but_the_head(llm: Any, model: CausalLM, num_workers: int) -> None:
    """What vLLM's own reload from a directory does to a model with tied embeddings."""
    weights = ((name, weight) for name, weight in model.named_weights() if name != "lm_head.weight")
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    llm.reset_prefix_cache()


@pytest.mark.parametrize("broken", [send_nothing, send_all_but_the_head], ids=lambda broken: broken.__name__)
def test_planted_stale_weights_are_caught(
    engine: VllmEngine, model: CausalLM, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    train_a_little(model)
    monkeypatch.setattr(vllm_room, "send_weights", broken)
    with pytest.raises(StaleWeightsError, match=r"does not sample from the policy \(version 1\).*engine: local"):
        engine.load(model, 1)


def test_an_update_below_the_tolerance_is_still_caught_when_it_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model(dtype=torch.bfloat16, spread=0.05)
    engine = engine_of(model)
    train_a_little(model, 0.002)
    with monkeypatch.context() as patch:
        patch.setattr(vllm_room, "send_weights", send_nothing)
        with pytest.raises(StaleWeightsError, match="kept its old weights"):
            engine.load(model, 1)
    engine.load(model, 1)
    engine.close()


def test_keys_and_values_of_old_weights_are_forgotten() -> None:
    model = tiny_model()
    model.base.config.max_position_embeddings = 512
    model = wrap(model.module, model.tokenizer, "longer")  # vLLM caches whole blocks of 128 tokens
    engine = engine_of(model)
    request = [Request(prompt_of(300), (0,))]
    sample_all(engine, request, GREEDY)
    train_a_little(model)
    engine.load(model, 1)
    rollouts = sample_all(engine, request, GREEDY)
    engine.close()
    assert_logprobs(model, rollouts.values(), 1.0, 1e-4)


def test_a_seed_gives_the_same_sample_alone_and_in_company(engine: VllmEngine) -> None:
    sampling = Sampling(max_tokens=24, seed=5)
    together = sample_all(engine, [Request(prompt_of(length), tuple(range(8))) for length in (2, 5, 9, 30)], sampling)
    alone = sample_all(engine, [Request(prompt_of(5), (3,))], sampling)
    assert alone["p5", 3].tokens == together["p5", 3].tokens


def test_this_process_is_left_as_it_was(model: CausalLM) -> None:
    torch.manual_seed(7)
    state, set_num_threads = torch.get_rng_state(), torch.set_num_threads
    engine = engine_of(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.set_num_threads is set_num_threads
    assert torch.get_num_threads() == 1
    engine.close()
    assert not torch.distributed.is_initialized()


def test_a_cache_too_small_for_one_sequence_says_what_is_needed(model: CausalLM) -> None:
    with pytest.raises(UserError, match=rf"rollout.cache_tokens: 64 tokens.*set it to {CONTEXT} or more"):
        engine_of(model, cache_tokens=64)


def test_an_answer_is_never_cut_short_by_a_setting_of_vllm(model: CausalLM) -> None:
    engine = engine_of(model, vllm={"max_model_len": 32})
    with pytest.raises(UserError, match=r"max_model_len: 32 tokens are too few .* `p20` \(20\).*set it to 36"):
        sample_all(engine, [Request(prompt_of(20), (0,))], GREEDY)
    assert len(sample_all(engine, [Request(prompt_of(16), (0,))], GREEDY)) == 1
    engine.close()


def test_a_temperature_that_vllm_does_not_take_is_refused_before_sampling(engine: VllmEngine) -> None:
    with pytest.raises(UserError, match=r"temperature: vLLM takes 0 to 2, not 2.5"):
        sample_all(engine, REQUESTS, Sampling(max_tokens=4, temperature=2.5))


def test_settings_that_vllm_refuses_are_told_in_its_words(model: CausalLM) -> None:
    with pytest.raises(UserError, match=r"rollout.vllm: vLLM can't be built for `tiny-qwen2`: .*memory"):
        engine_of(model, vllm={"gpu_memory_utilization": 0.3}, cache_tokens=10**12)
