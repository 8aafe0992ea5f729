"""The local engine keeps the contract, whatever the batch, the order and the architecture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from open_rs.config.schema import LoraConfig
from open_rs.models import CausalLM, _add_adapter, wrap
from open_rs.prompts import Prompt
from open_rs.rollout import Engine, Request, Sampling, decode
from open_rs.rollout.decode import is_supported
from open_rs.rollout.local import LocalEngine
from open_rs.types import UserError
from rollout.contract import (
    VOCABULARY,
    Architecture,
    EngineContract,
    assert_greedy,
    assert_logprobs,
    prompt_of,
    sample_all,
    tiny_model,
)


class TestLocalContract(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM) -> Iterator[Engine]:
        engine = LocalEngine(max_concurrent=64)
        engine.load(model, 0)
        yield engine
        engine.close()
        engine.close()


class TestLocalContractWithoutCompiler(EngineContract):
    chi_square_samples = 4_000

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM) -> Iterator[Engine]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decode, "load_kernels", lambda _: None)
            engine = LocalEngine(max_concurrent=64)
            engine.load(model, 0)
            yield engine
            engine.close()


class TestGeneralPathContract(EngineContract):
    chi_square_samples = 4_000

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> CausalLM:
        return tiny_model("gpt2", spread=0.3)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM) -> Iterator[Engine]:
        assert not is_supported(model)
        engine = LocalEngine(max_concurrent=64)
        engine.load(model, 0)
        yield engine
        engine.close()


def engine_of(model: CausalLM, **settings: int) -> LocalEngine:
    engine = LocalEngine(**settings)
    engine.load(model, 0)
    return engine


REQUESTS = [Request(prompt_of(length), tuple(range(8))) for length in (1, 3, 8, 9, 17, 33, 40, 60)]


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_sample_does_not_depend_on_its_batch(architecture: Architecture, dtype: torch.dtype) -> None:
    model, sampling = tiny_model(architecture, dtype), Sampling(max_tokens=40, seed=5)
    together = sample_all(engine_of(model, max_concurrent=64), REQUESTS, sampling)
    reversed_order = sample_all(engine_of(model, max_concurrent=64), REQUESTS[::-1], sampling)
    few_slots = sample_all(engine_of(model, max_concurrent=11), REQUESTS, sampling)
    one = engine_of(model, max_concurrent=64)
    alone = {
        key: rollout
        for request in REQUESTS
        for number in request.samples
        for key, rollout in sample_all(one, [Request(request.prompt, (number,))], sampling).items()
    }
    assert together == reversed_order == few_slots == alone  # log-probabilities bit for bit as well


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_other_architectures_decode_what_the_module_computes(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    assert is_supported(model)
    engine = engine_of(model)
    for rollout in engine.generate(REQUESTS, Sampling(max_tokens=24, temperature=0.0)):
        assert_greedy(model, rollout)
    assert_logprobs(model, engine.generate(REQUESTS[:3], Sampling(max_tokens=24)), 1.0, 1e-4)


def test_bfloat16_logprobs_stay_near_the_learners() -> None:
    model = tiny_model(dtype=torch.bfloat16, spread=0.05)
    assert_logprobs(model, engine_of(model).generate(REQUESTS, Sampling(max_tokens=24)), 1.0, 2e-2)


# PEFT 0.20 still asks for a property that transformers 5.23 has renamed.
peft_warning = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def lora_model(dtype: torch.dtype = torch.float32) -> CausalLM:
    """A model whose adapters are not zero."""
    base = tiny_model(dtype=dtype)
    module = _add_adapter(base.module, LoraConfig(rank=4, alpha=8.0, dropout=0.1))
    for name, weight in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return wrap(module.eval(), base.tokenizer, "tiny-lora")


@peft_warning
def test_adapters_are_part_of_what_is_sampled() -> None:
    model = lora_model()
    assert is_supported(model)
    rollouts = list(engine_of(model).generate(REQUESTS, Sampling(max_tokens=24)))
    assert_logprobs(model, rollouts, 1.0, 1e-4)
    with pytest.raises(AssertionError), model.module.disable_adapter():
        assert_logprobs(model, rollouts, 1.0, 1e-4)


def test_weights_changed_in_place_are_seen_after_load() -> None:
    model = tiny_model()
    engine = engine_of(model)
    before = sample_all(engine, REQUESTS[:2], Sampling(max_tokens=12))
    with torch.no_grad():
        for weight in model.module.parameters():
            weight.mul_(1.1)
    engine.load(model, 1)
    rollouts = sample_all(engine, REQUESTS[:2], Sampling(max_tokens=12))
    assert_logprobs(model, rollouts.values(), 1.0, 1e-4)
    assert rollouts != before


@peft_warning
def test_a_module_in_training_mode_is_sampled_without_dropout_and_left_as_it_was() -> None:
    for model in (lora_model(), tiny_model("gpt2")):
        expected = sample_all(engine_of(model), REQUESTS[:2], Sampling(max_tokens=8))
        model.module.train()
        assert sample_all(engine_of(model), REQUESTS[:2], Sampling(max_tokens=8)) == expected
        assert model.module.training


def test_a_sampling_that_was_cut_off_goes_on_with_the_same_samples(tmp_path: Path) -> None:
    model, sampling = tiny_model(), Sampling(max_tokens=40, seed=5, step=3)
    whole = sample_all(engine_of(model), REQUESTS, sampling)
    begun = engine_of(model).generate(REQUESTS, sampling)
    finished = {(r.problem_id, r.sample): r for r in itertools.islice(begun, 20)}
    begun.close()
    model.save_pretrained(tmp_path / "model")
    again = wrap(AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval(), model.tokenizer, "again")
    left = [
        Request(request.prompt, tuple(n for n in request.samples if (request.prompt.problem_id, n) not in finished))
        for request in REQUESTS
    ]
    rest = sample_all(engine_of(again, max_concurrent=7), left, sampling)
    assert {key: row.tokens for key, row in (finished | rest).items()} == {k: row.tokens for k, row in whole.items()}
    assert {key: row.logprobs for key, row in rest.items()} == {key: whole[key].logprobs for key in rest}


def test_a_cache_too_small_for_one_sequence_says_what_is_needed() -> None:
    engine = engine_of(tiny_model(), cache_tokens=100)
    with pytest.raises(UserError, match="128 or more"):
        list(engine.generate([Request(prompt_of(60), (0,))], Sampling(max_tokens=60)))


def test_a_small_cache_gives_the_same_samples_with_fewer_slots() -> None:
    model, sampling = tiny_model(), Sampling(max_tokens=40)
    small = engine_of(model, max_concurrent=64, cache_tokens=3 * 128)
    with small.awake():
        rollouts = sample_all(small, REQUESTS, sampling)
        assert small.cache_slots == 3
    assert small.cache_slots == 0
    assert rollouts == sample_all(engine_of(model), REQUESTS, sampling)


def test_out_of_memory_takes_fewer_slots_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = decode.SlotCache

    def scarce(shape: object, num_slots: int, *rest: object) -> object:
        if num_slots > 8:
            raise torch.OutOfMemoryError("planted")
        return real(shape, num_slots, *rest)  # pyright: ignore[reportArgumentType]

    model, sampling = tiny_model(), Sampling(max_tokens=8)
    expected = sample_all(engine_of(model), REQUESTS, sampling)
    monkeypatch.setattr(decode, "SlotCache", scarce)
    assert sample_all(engine_of(model), REQUESTS, sampling) == expected
    assert "trying 8" in caplog.text


def test_out_of_memory_in_the_middle_goes_on_with_fewer_slots_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from open_rs.rollout.decode import Decoder

    model, sampling = tiny_model(), Sampling(max_tokens=30)
    expected = sample_all(engine_of(model), REQUESTS, sampling)
    real, calls = Decoder.step, []

    def scarce(self: Decoder, tokens: torch.Tensor, positions: torch.Tensor, length: int) -> torch.Tensor:
        calls.append(tokens.shape[0])
        if len(calls) > 20 and tokens.shape[0] > 8:
            raise torch.OutOfMemoryError("planted")
        return real(self, tokens, positions, length)

    monkeypatch.setattr(Decoder, "step", scarce)
    assert sample_all(engine_of(model), REQUESTS, sampling) == expected
    assert "trying 8" in caplog.text


def test_out_of_memory_with_one_slot_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise torch.OutOfMemoryError("planted")

    monkeypatch.setattr(decode, "SlotCache", refuse)
    with pytest.raises(UserError, match="lower max_completion_length"):
        list(engine_of(tiny_model()).generate(REQUESTS, Sampling(max_tokens=8)))


def test_one_prompt_is_prefilled_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    from open_rs.rollout.decode import Decoder

    seen: list[int] = []
    real = Decoder.prefill

    def counted(self: Decoder, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens.shape[0])
        return real(self, tokens)

    monkeypatch.setattr(Decoder, "prefill", counted)
    list(engine_of(tiny_model(), max_concurrent=5).generate(REQUESTS, Sampling(max_tokens=8)))
    assert seen == [len(request.prompt.tokens) - 1 for request in REQUESTS]


def test_all_words_can_be_stop_ids() -> None:
    model = tiny_model()
    everything = CausalLM(**{**vars(model), "stop_ids": frozenset(range(VOCABULARY))})
    rollouts = list(
        engine_of(everything).generate([Request(Prompt("p", (), "", (5,)), (0, 1))], Sampling(max_tokens=9))
    )
    assert [(r.finish, len(r.tokens), r.text) for r in rollouts] == [("stop", 1, "")] * 2
