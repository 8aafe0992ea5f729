"""What stands between a recipe and a policy: its checks, objective, optimiser, reference, and the module made ready."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from open_rs.config.schema import AlgorithmConfig, OptimizerConfig
from open_rs.models import CausalLM
from open_rs.train.grpo import Objective
from open_rs.train.head import OutputHead, find_head
from open_rs.train.optimizer import MasterAdamW
from open_rs.train.products import fast_products
from open_rs.types import UserError


def build_objective(algorithm: AlgorithmConfig) -> Objective:
    """The recipe's objective as plain values."""
    return Objective(
        name=algorithm.objective,
        level=algorithm.importance_sampling_level,
        epsilon_low=algorithm.epsilon,
        epsilon_high=algorithm.epsilon if algorithm.epsilon_high is None else algorithm.epsilon_high,
        delta=algorithm.delta,
        beta=algorithm.beta,
        unbiased_kl=algorithm.use_bias_correction_kl,
        sampler_cap=algorithm.sampler_correction_cap,
    )


def build_optimizer(trainable: Iterator[tuple[str, torch.nn.Parameter]], config: OptimizerConfig) -> MasterAdamW:
    """AdamW over fp32 masters; matrices decay, biases and norms don't."""
    parameters = [parameter for _, parameter in trainable]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return MasterAdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        eight_bit=config.name == "adamw_8bit",
    )


Reference = tuple[CausalLM, OutputHead, Callable[[], AbstractContextManager[Any]]]


def build_reference(model: CausalLM, head: OutputHead) -> Reference:
    """The model as it is now: under a switched-off adapter if it has one, else a frozen copy."""
    if model.has_adapter:
        return model, head, model.module.disable_adapter
    frozen = replace(model, module=copy.deepcopy(model.module).requires_grad_(False).eval())
    return frozen, find_head(frozen.base, head.temperature, head.chunk_tokens), nullcontext


def prepare_module(model: CausalLM, gradient_checkpointing: bool) -> None:
    if gradient_checkpointing:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new name came after transformers 5.17
            settings = {"use_reentrant": False, "context_fn": lambda: _contexts(model.device)}
            model.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    for parameter in model.module.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.grad_dtype = torch.float32  # micro-batches add up in fp32 whatever the weights are stored in


def _contexts(device: torch.device) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """What a checkpoint enters for its first pass and to recompute it, which backward does outside every torch mode."""
    return nullcontext(), fast_products(device)


def check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise UserError(
            "rollout.temperature: at 0 all samples of a problem are the same, so nothing can be learned; use 0.6 to 1.0"
        )


def check_division(prompts_per_step: int, num_processes: int) -> None:
    if prompts_per_step % num_processes == 0:
        return
    lower = prompts_per_step // num_processes * num_processes
    fitting = [str(n) for n in (lower, lower + num_processes) if n]
    divisors = [str(n) for n in range(1, num_processes + 2) if prompts_per_step % n == 0]
    raise UserError(
        f"train.prompts_per_step: {prompts_per_step} prompts do not divide over {num_processes} processes; use "
        f"{' or '.join(fitting)}, or start {' or '.join(divisors[-2:])} processes"
    )
