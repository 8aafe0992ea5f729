"""What every rollout engine must do: a test class inherits `EngineContract` (or `EngineManners`).

`from rollout.contract import EngineContract, tiny_model` (the folder `tests` is on the path).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from open_rs.models import CausalLM, wrap
from open_rs.prompts import Prompt
from open_rs.rollout import Engine, Request, Sampling
from open_rs.types import Rollout, UserError

Architecture = Literal["qwen2", "qwen3", "llama", "gpt2"]

VOCABULARY = 200
CONTEXT = 128  # tokens
STOP_IDS = (1, 3)  # the tokenizer knows the first, the generation config both
NEAR_TIE = 1e-4  # nats; below this two greedy decoders may part


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Word `w7` is token 7."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w2", model_max_length=CONTEXT)


def tiny_model(
    architecture: Architecture = "qwen2", dtype: torch.dtype = torch.float32, spread: float = 0.2, num_heads: int = 4
) -> CausalLM:
    """Two layers, 128 wide, random weights of standard deviation `spread`, two stop ids."""
    torch.manual_seed(0)
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_heads // 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": None,
        "eos_token_id": list(STOP_IDS),
        "initializer_range": spread,
    }
    build = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**shared, tie_word_embeddings=True)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**shared, head_dim=32)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**shared, attention_bias=True, mlp_bias=True)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=64,
                n_layer=2,
                n_head=4,
                n_positions=CONTEXT,
                bos_token_id=None,
                eos_token_id=list(STOP_IDS),
                initializer_range=spread,
            )
        ),
    }
    module = build[architecture]()
    for name, weight in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1)
    return wrap(module.to(dtype).eval(), tiny_tokenizer(), f"tiny-{architecture}")


def prompt_of(length: int, name: str | None = None) -> Prompt:
    """A prompt of `length` ordinary words that depends on nothing but its length and its name."""
    name = f"p{length}" if name is None else name
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(4, VOCABULARY, (length,), generator=generator).tolist()
    text = " ".join(f"w{token}" for token in tokens)
    return Prompt(name, ({"role": "user", "content": text},), text, tuple(tokens))


def sample_all(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> dict[tuple[str, int], Rollout]:
    """Every rollout by (problem id, sample number); fails where one comes twice."""
    rollouts = list(engine.generate(requests, sampling))
    by_key = {(rollout.problem_id, rollout.sample): rollout for rollout in rollouts}
    assert len(by_key) == len(rollouts), "a sample came twice"
    return by_key


@torch.no_grad()
def learner_logprobs(model: CausalLM, rollout: Rollout, temperature: float) -> torch.Tensor:
    """Full log-probabilities [C, V] that the module itself gives at every completion position."""
    tokens = torch.tensor([rollout.prompt_tokens + rollout.tokens], device=model.device)
    logits = model.module(input_ids=tokens, use_cache=False).logits[0, len(rollout.prompt_tokens) - 1 : -1]
    return (logits.float() / temperature).log_softmax(-1)


def assert_greedy(model: CausalLM, rollout: Rollout, near_tie: float = NEAR_TIE) -> None:
    """Each token is the module's most likely one, up to a near-tie."""
    logprobs = learner_logprobs(model, rollout, 1.0)
    chosen = logprobs.gather(-1, torch.tensor(rollout.tokens, device=logprobs.device)[:, None])[:, 0]
    gap = (logprobs.amax(-1) - chosen).max().item()
    assert gap < near_tie, f"greedy token {gap:.2e} nats below the best"


def assert_logprobs(model: CausalLM, rollouts: Iterable[Rollout], temperature: float, tolerance: float) -> None:
    """The sampler's log-probabilities are the learner's."""
    for rollout in rollouts:
        assert rollout.logprobs is not None
        tokens = torch.tensor(rollout.tokens, device=model.device)[:, None]
        expected = learner_logprobs(model, rollout, temperature).gather(-1, tokens)[:, 0].cpu()
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=tolerance, rtol=0)


class EngineManners:
    """What holds for every engine, also for one that reads from a script. Override `engine`."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> CausalLM:
        return tiny_model()

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, model: CausalLM) -> Iterator[Engine]:
        raise NotImplementedError

    def test_every_requested_sample_comes_exactly_once(self, engine: Engine) -> None:
        requests = [Request(prompt_of(5), (0, 1, 2)), Request(prompt_of(9), (4, 7))]
        rollouts = sample_all(engine, requests, Sampling(max_tokens=6))
        assert set(rollouts) == {("p5", 0), ("p5", 1), ("p5", 2), ("p9", 4), ("p9", 7)}
        assert all(rollouts["p5", i].prompt_tokens == requests[0].prompt.tokens for i in range(3))

    def test_no_request_gives_no_rollout(self, engine: Engine) -> None:
        assert list(engine.generate([], Sampling(max_tokens=4))) == []

    def test_the_same_request_gives_the_same_samples_again(self, engine: Engine) -> None:
        request, sampling = [Request(prompt_of(5), (0, 1))], Sampling(max_tokens=16, seed=3)
        assert sample_all(engine, request, sampling) == sample_all(engine, request, sampling)

    @pytest.mark.parametrize("max_tokens", [1, 2, 13])
    def test_length_limit_is_exact(self, engine: Engine, max_tokens: int) -> None:
        rollouts = list(engine.generate([Request(prompt_of(5), tuple(range(16)))], Sampling(max_tokens=max_tokens)))
        assert any(rollout.finish == "length" for rollout in rollouts)
        for rollout in rollouts:
            assert (
                len(rollout.tokens) == max_tokens if rollout.finish == "length" else len(rollout.tokens) <= max_tokens
            )
            assert rollout.logprobs is not None and len(rollout.logprobs) == len(rollout.tokens)

    def test_closing_the_iterator_early_leaves_the_engine_usable(self, engine: Engine) -> None:
        request, sampling = [Request(prompt_of(5), tuple(range(6)))], Sampling(max_tokens=20)
        expected = sample_all(engine, request, sampling)
        iterator = engine.generate(request, sampling)
        next(iter(iterator))
        iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert sample_all(engine, request, sampling) == expected

    def test_rollouts_carry_the_version_of_the_weights(self, engine: Engine, model: CausalLM) -> None:
        engine.load(model, 17)
        [rollout] = engine.generate([Request(prompt_of(5), (0,))], Sampling(max_tokens=2))
        assert rollout.policy_version == 17

    def test_awake_can_be_nested_around_several_calls(self, engine: Engine) -> None:
        request = [Request(prompt_of(5), (0,))]
        with engine.awake():
            first = sample_all(engine, request, Sampling(max_tokens=4))
            assert sample_all(engine, request, Sampling(max_tokens=4)) == first


class EngineContract(EngineManners):
    """What holds for every engine that samples a model. Override `engine`, and `model` and the numbers if need be."""

    hottest = 3.0  # the highest temperature that the tests ask for
    logprob_tolerance = 1e-4  # nats
    near_tie = NEAR_TIE  # nats
    chi_square_samples = 10_000

    def test_greedy_output_is_the_models_own_up_to_a_near_tie(self, engine: Engine, model: CausalLM) -> None:
        requests = [Request(prompt_of(length), (0,)) for length in (1, 2, 7, 8, 9, 30)]
        for rollout in engine.generate(requests, Sampling(max_tokens=24, temperature=0.0)):
            assert_greedy(model, rollout, self.near_tie)

    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    def test_logprobs_equal_the_learners(self, engine: Engine, model: CausalLM, temperature: float) -> None:
        requests = [Request(prompt_of(length), (0, 1)) for length in (1, 6, 17)]
        rollouts = list(engine.generate(requests, Sampling(max_tokens=24, temperature=temperature)))
        assert_logprobs(model, rollouts, temperature, self.logprob_tolerance)

    def test_logprobs_are_taken_before_truncation(self, engine: Engine, model: CausalLM) -> None:
        rollouts = list(engine.generate([Request(prompt_of(6), (0, 1))], Sampling(max_tokens=12, top_p=0.5, top_k=5)))
        assert_logprobs(model, rollouts, 1.0, self.logprob_tolerance)

    def test_samples_of_one_prompt_differ(self, engine: Engine) -> None:
        rollouts = sample_all(engine, [Request(prompt_of(5), tuple(range(8)))], Sampling(max_tokens=16))
        assert len({rollout.tokens for rollout in rollouts.values()}) > 6

    def test_another_seed_or_step_gives_other_samples(self, engine: Engine) -> None:
        request = [Request(prompt_of(5), tuple(range(4)))]
        settings = [Sampling(max_tokens=16, seed=seed, step=step) for seed, step in ((0, 0), (1, 0), (0, 1))]
        drawn = [tuple(r.tokens for r in sample_all(engine, request, setting).values()) for setting in settings]
        assert len(set(drawn)) == 3

    def test_every_stop_id_stops_and_stays_out_of_the_text(self, engine: Engine, model: CausalLM) -> None:
        sampling = Sampling(max_tokens=100, temperature=self.hottest)
        rollouts = list(engine.generate([Request(prompt_of(5), tuple(range(48)))], sampling))
        ends = Counter(rollout.tokens[-1] for rollout in rollouts if rollout.finish == "stop")
        assert set(ends) == set(STOP_IDS) == set(model.stop_ids)
        for rollout in rollouts:
            body = rollout.tokens[:-1] if rollout.finish == "stop" else rollout.tokens
            assert not set(body) & set(STOP_IDS)
            assert rollout.text == model.tokenizer.decode(body)

    def test_a_prompt_just_under_the_limit_gets_the_room_that_is_left(self, engine: Engine) -> None:
        rollouts = list(engine.generate([Request(prompt_of(CONTEXT - 2), (0, 1, 2))], Sampling(max_tokens=50)))
        assert max(len(rollout.tokens) for rollout in rollouts) == 2

    @pytest.mark.parametrize("length", [0, CONTEXT, CONTEXT + 40], ids=["empty", "at the limit", "over the limit"])
    def test_a_prompt_that_leaves_no_room_is_refused_by_name(self, engine: Engine, length: int) -> None:
        with pytest.raises(UserError, match="culprit"):
            list(engine.generate([Request(prompt_of(length, "culprit"), (0,))], Sampling(max_tokens=5)))

    @pytest.mark.parametrize(
        "limits",
        [
            {},
            {"temperature": 0.5},
            {"top_k": 7},
            {"top_p": 0.6},
            {"min_p": 0.2},
            {"top_k": 20, "top_p": 0.8, "temperature": 1.5},
        ],
        ids=str,
    )
    def test_samples_follow_the_models_distribution(
        self, engine: Engine, model: CausalLM, limits: dict[str, Any]
    ) -> None:
        count = self.chi_square_samples
        sampling = Sampling(max_tokens=1, seed=11, **limits)
        drawn = Counter(r.tokens[0] for r in engine.generate([Request(prompt_of(5), tuple(range(count)))], sampling))
        expected = expected_distribution(model, prompt_of(5), sampling)
        observed = torch.tensor([drawn[token] for token in range(VOCABULARY)], dtype=torch.float64)
        assert observed[expected == 0].sum() == 0, "a word that truncation cuts was drawn"
        assert _chi_square_p(observed, expected * count) > 1e-4


@torch.no_grad()
def expected_distribution(model: CausalLM, prompt: Prompt, sampling: Sampling) -> torch.Tensor:
    """The next word's distribution [V] by sorting, as the definition of each truncation says."""
    logits = model.module(input_ids=torch.tensor([prompt.tokens], device=model.device)).logits[0, -1].double().cpu()
    weights = (logits / sampling.temperature).softmax(-1)
    order = weights.argsort(descending=True)
    if sampling.top_k:
        weights[order[sampling.top_k :]] = 0
        weights /= weights.sum()
    if sampling.top_p < 1:
        mass_before = weights[order].cumsum(-1) - weights[order]
        weights[order[mass_before >= sampling.top_p]] = 0
    weights[weights < sampling.min_p * weights.max()] = 0
    return weights / weights.sum()


def _chi_square_p(observed: torch.Tensor, expected: torch.Tensor) -> float:
    """p-value; words expected fewer than five times are counted together."""
    rare = expected < 5
    bins = [*zip(observed[~rare].tolist(), expected[~rare].tolist(), strict=True)]
    if expected[rare].sum() >= 5:
        bins.append((observed[rare].sum().item(), expected[rare].sum().item()))
    if len(bins) < 2:
        return 1.0
    seen, awaited = (torch.tensor(column, dtype=torch.float64) for column in zip(*bins, strict=True))
    p_value = chisquare(seen.numpy(), (awaited * seen.sum() / awaited.sum()).numpy()).pvalue
    assert math.isfinite(p_value)
    return float(p_value)
