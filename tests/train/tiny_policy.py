"""A random two-layer model, recorded rollouts, and full-logit log-probabilities to hold the learner against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model

import tiny
from open_rs.config.schema import AlgorithmConfig, OptimizerConfig, TrainConfig
from open_rs.models import CausalLM
from open_rs.train.batch import Batch, build_batch
from open_rs.train.policy import Policy
from open_rs.types import Group, Problem, Rollout, Score, Verdict

VOCABULARY = 260
LIMIT = 12  # max_completion_length


def tiny_model(
    family: str = "qwen2", *, seed: int = 0, lora: bool = False, dtype: torch.dtype = torch.float32
) -> CausalLM:
    """A random model with tied embeddings, in fp32 on the CPU; its adapter, if it has one, is random too."""
    model = tiny.tiny_model(family, seed=seed)
    if not lora:
        return replace(model, module=model.module.to(dtype), dtype=dtype)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = PeftLoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        module = get_peft_model(model.module, adapter)
        for name, parameter in module.named_parameters():
            if "lora_B" in name:  # it starts at zero, which would hide mistakes in A
                torch.nn.init.normal_(parameter, std=0.02)
    return replace(model, module=module)


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
        logprobs=tuple(-4.8 - 1.4 * chance.random() for _ in range(length)) if logprobs else None,
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
