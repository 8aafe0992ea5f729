"""A random two-layer model, recorded rollouts, and full-logit log-probabilities to hold the learner against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from open_rs.config.schema import AlgorithmConfig, LoraConfig, OptimizerConfig, TrainConfig
from open_rs.models import CausalLM
from open_rs.train.batch import Batch, build_batch
from open_rs.train.policy import Policy
from open_rs.types import Group, Problem, Rollout, Score, Verdict

VOCABULARY = 61
LIMIT = 12  # max_completion_length
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
}
FAMILIES: dict[str, Any] = {
    "qwen2": lambda **changes: Qwen2ForCausalLM(Qwen2Config(**SIZES | changes)),
    "qwen3": lambda **changes: Qwen3ForCausalLM(Qwen3Config(head_dim=8, **SIZES | changes)),
    "llama": lambda **changes: LlamaForCausalLM(LlamaConfig(**SIZES | changes)),
}


def tiny_model(family: str = "qwen2", *, lora: LoraConfig | None = None, seed: int = 0, **changes: Any) -> CausalLM:
    """A random model of a family, in fp32 on the CPU unless `dtype` says otherwise."""
    dtype = changes.pop("dtype", torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: Any = FAMILIES[family](**changes).to(dtype).eval()
        if lora is not None:
            peft = PeftLoraConfig(
                r=lora.rank, lora_alpha=int(lora.alpha), target_modules="all-linear", task_type="CAUSAL_LM"
            )
            module = get_peft_model(module, peft)
            for name, parameter in module.named_parameters():  # B starts at zero, which would hide mistakes in A
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.02)
    words = {str(n): n for n in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")), eos_token="1")
    return CausalLM(module, tokenizer, f"tiny-{family}", torch.device("cpu"), dtype, frozenset({1}), 128)


def tiny_policy(
    model: CausalLM | None = None, *, temperature: float = 0.8, record_event: Any = None, **settings: Any
) -> Policy:
    """A policy whose settings are named as in the recipe, whichever section they stand in."""
    sections = [
        section(**{name: value for name, value in settings.items() if name in section.model_fields})
        for section in (OptimizerConfig, AlgorithmConfig, TrainConfig)
    ]
    extra = {} if record_event is None else {"record_event": record_event}
    return Policy(model or tiny_model(), *sections, temperature=temperature, **extra)


def rollout(problem_id: str, sample: int, seed: int, *, tokens: int | None = None, logprobs: bool = True) -> Rollout:
    """Random tokens after a random prompt; the prompt depends on the problem only."""
    prompt_chance, chance = random.Random(problem_id), random.Random(f"{problem_id} {sample} {seed}")
    length = chance.randint(1, LIMIT) if tokens is None else tokens
    words = tuple(chance.randrange(2, VOCABULARY) for _ in range(length))
    finish = "length" if length == LIMIT else "stop"
    return Rollout(
        problem_id=problem_id,
        sample=sample,
        prompt_tokens=tuple(prompt_chance.randrange(2, VOCABULARY) for _ in range(prompt_chance.randint(1, 9))),
        tokens=words if finish == "length" else (*words, 1)[1:],
        logprobs=tuple(-4 - chance.random() for _ in range(length)) if logprobs else None,
        text="",
        finish=finish,
        policy_version=0,
    )


def group(name: str, rollouts: Sequence[Rollout], correct: Sequence[bool | None]) -> Group:
    problem = Problem(name, "", "", "test")
    return Group(problem, tuple(rollouts), tuple(Verdict(c, None, "") for c in correct))


def recorded(rewards: Sequence[Sequence[float | None]], seed: int = 0) -> tuple[list[Group], list[list[Score]]]:
    """Groups with the given rewards and random completions."""
    groups = [
        group(f"problem {q}", [rollout(f"problem {q}", g, seed) for g in range(len(row))], [r and r > 0.5 for r in row])
        for q, row in enumerate(rewards)
    ]
    return groups, [[Score(reward, {}) for reward in row] for row in rewards]


REWARDS = [[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.5, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.2, 1.0, 0.0, 0.3]]


def recorded_batch(algorithm: AlgorithmConfig | None = None, rewards: Any = REWARDS, seed: int = 0) -> Batch:
    return build_batch(*recorded(rewards, seed), algorithm or AlgorithmConfig(), max_completion_length=LIMIT)


def full_logprobs(module: Any, batch: Batch, temperature: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [N, T] and entropies [N, T] from the module's own full logits, one row at a time."""
    logprobs, entropies = torch.zeros(batch.tokens.shape), torch.zeros(batch.tokens.shape)
    rows = []
    for tokens, length in zip(batch.tokens, batch.lengths, strict=True):
        logits = module(input_ids=tokens[None, :length], use_cache=False).logits[0].float() / temperature
        rows.append(logits.log_softmax(-1))
    logprobs = torch.stack(
        [
            torch.nn.functional.pad(row[:-1].gather(1, tokens[1:length, None])[:, 0], (1, len(tokens) - int(length)))
            for row, tokens, length in zip(rows, batch.tokens, batch.lengths, strict=True)
        ]
    )
    entropies = torch.stack(
        [
            torch.nn.functional.pad(-(row.exp() * row).sum(-1)[:-1], (1, batch.tokens.shape[1] - len(row)))
            for row in rows
        ]
    )
    return logprobs, entropies


def weights_of(policy: Policy) -> torch.Tensor:
    """All trainable weights as one vector."""
    return torch.cat([p.detach().float().flatten() for _, p in policy.trainable()])


def gradient_of(policy: Policy, batch: Batch, old: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of a batch as one vector, before clipping; off policy where `old` [N, T] is given."""
    rows = range(len(batch.lengths))
    batch, _ = policy._with_fixed_logprobs(batch)
    policy._retried(batch, rows, lambda plans: policy._accumulate(batch, plans, old))
    found = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in policy.trainable()]
    policy.optimizer.zero_grad()
    return torch.cat([gradient.float().flatten() for gradient in found])
