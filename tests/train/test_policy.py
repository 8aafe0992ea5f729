"""The update against the full logits, and everything that it must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from open_rs.config.schema import AlgorithmConfig
from open_rs.train.batch import Batch
from open_rs.train.policy import Policy
from open_rs.types import UserError
from train.tiny_policy import (
    full_logprobs,
    gradient_of,
    recorded_batch,
    tiny_model,
    tiny_policy,
    weights_of,
)

FAMILIES = ["qwen2", "qwen3", "llama"]


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_and_gradient_are_those_of_the_full_logits(family: str) -> None:
    model, batch = tiny_model(family), recorded_batch()
    policy = tiny_policy(model, logprob_chunk_tokens=5, sampler_correction_cap=None)
    logprobs, entropies = full_logprobs(model.module, batch)
    torch.testing.assert_close(policy.logprobs(batch), logprobs.detach() * batch.trained)
    loss = -(batch.weights[:, None] * batch.advantages[:, None] * logprobs * batch.trained).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.module.parameters()))])
    torch.testing.assert_close(gradient_of(policy, batch), expected, rtol=1e-4, atol=1e-7)
    assert policy.update(batch, 1e-9)["entropy"] == pytest.approx(entropies[batch.trained].mean().item(), rel=1e-5)


def permuted(batch: Batch) -> Batch:
    order = torch.randperm(len(batch.lengths), generator=torch.Generator().manual_seed(3))
    names = ("tokens", "trained", "sampler_logprobs", "lengths", "advantages", "weights")
    return replace(batch, **{name: getattr(batch, name)[order] for name in names})


def widened(batch: Batch) -> Batch:
    pad: dict[str, Any] = {"tokens": 7, "trained": False, "sampler_logprobs": math.nan}
    columns = {name: torch.nn.functional.pad(getattr(batch, name), (0, 9), value=fill) for name, fill in pad.items()}
    return replace(batch, **columns)


SAME_UPDATE: dict[str, tuple[dict[str, Any], Callable[[Batch], Batch]]] = {
    "one row at a time": ({"tokens_per_micro_batch": 1}, lambda batch: batch),
    "small token budget": ({"tokens_per_micro_batch": 40}, lambda batch: batch),
    "one row of logits at a time": ({"logprob_chunk_tokens": 1}, lambda batch: batch),
    "wider padding, filled with words": ({}, widened),
    "another row order": ({"tokens_per_micro_batch": 40}, permuted),
    "packed": ({"packing": True}, lambda batch: batch),
    "packed, small budget": ({"packing": True, "tokens_per_micro_batch": 40}, lambda batch: batch),
    "gradient checkpointing": ({"gradient_checkpointing": True}, lambda batch: batch),
}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dapo": {},
    "sequence level with kl": {"importance_sampling_level": "sequence", "beta": 0.1, "loss_type": "grpo"},
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
@pytest.mark.parametrize(("settings", "change"), SAME_UPDATE.values(), ids=SAME_UPDATE.keys())
def test_update_does_not_depend_on(
    settings: dict[str, Any], change: Callable[[Batch], Batch], objective: dict[str, Any]
):
    batch = recorded_batch(AlgorithmConfig(**objective))
    plain, other = tiny_policy(**objective), tiny_policy(**objective, **settings)
    before = gradient_of(plain, batch)
    assert (gradient_of(other, change(batch)) - before).norm() <= 1e-6 * before.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_first_step_is_on_policy(dtype: torch.dtype) -> None:
    batch = recorded_batch(AlgorithmConfig(beta=0.1))
    stats = tiny_policy(tiny_model(dtype=dtype), beta=0.1).update(batch, 1e-5)
    assert (stats["ratio_mean"], stats["ratio_max"], stats["kl"]) == (1.0, 1.0, 0.0)
    assert (stats["clip_low"], stats["clip_high"]) == (0.0, 0.0)


def test_later_steps_measure_their_distance_from_the_first_and_from_the_reference() -> None:
    batch = recorded_batch(AlgorithmConfig(beta=0.1))
    policy = tiny_policy(beta=0.1, num_iterations=2, num_minibatches=2, epsilon=0.01)
    stats = policy.update(batch, 1e-2)
    assert stats["ratio_max"] > 1.05
    assert stats["kl"] > 1e-3
    assert stats["clip_low"] > 0
    assert stats["clip_high"] > 0
    assert stats["optimizer_steps"] == 4
    assert stats["tokens_trained"] == 2 * int(batch.trained.sum())


def test_the_second_iteration_is_measured_from_the_logprobs_before_the_first() -> None:
    batch = recorded_batch()
    twice, once = tiny_policy(num_iterations=2), tiny_policy()
    old = once.logprobs(batch)
    gradients: list[torch.Tensor] = []
    twice.optimizer.register_step_pre_hook(
        lambda *_: gradients.append(torch.cat([p.grad.flatten() for _, p in twice.trainable() if p.grad is not None]))
    )
    twice.max_grad_norm = once.max_grad_norm = math.inf
    twice.update(batch, 1e-2)
    once.update(batch, 1e-2)
    torch.testing.assert_close(gradients[1], gradient_of(once, batch, old), rtol=1e-4, atol=1e-6)


def test_minibatches_add_up_to_the_whole_batch() -> None:
    batch = recorded_batch()
    policy = tiny_policy(num_minibatches=3, sampler_correction_cap=None)
    rows = [range(part, len(batch.lengths), 3) for part in range(3)]
    total = torch.zeros(())
    for part in rows:
        policy._retried(batch, part, lambda plans: policy._accumulate(batch, plans, None))
    total = torch.cat([p.grad.flatten() for _, p in policy.trainable()]) / 3
    torch.testing.assert_close(
        total, gradient_of(tiny_policy(sampler_correction_cap=None), batch), rtol=1e-4, atol=1e-7
    )


def test_sampler_disagreement_is_measured_over_the_tokens_that_have_a_logprob() -> None:
    batch = recorded_batch()
    policy = tiny_policy()
    sampler = policy.logprobs(batch) + 0.25
    sampler[0] = math.nan
    stats = policy.update(replace(batch, sampler_logprobs=sampler), 1e-9)
    assert stats["sampler_gap_mean"] == pytest.approx(0.25, rel=1e-4)
    assert stats["sampler_gap_max"] == pytest.approx(0.25, rel=1e-4)
    assert stats["sampler_kl"] == pytest.approx(math.exp(-0.25) + 0.25 - 1, rel=1e-3)


def test_a_batch_without_rows_moves_nothing_at_first_and_coasts_later() -> None:
    empty = recorded_batch(rewards=[[1.0, 1.0]])
    policy = tiny_policy()
    start = weights_of(policy)
    stats = policy.update(empty, 1e-3)
    assert torch.equal(weights_of(policy), start)
    assert (stats["loss"], stats["tokens_trained"], stats["groups_without_signal"]) == (0.0, 0.0, 1.0)
    policy.update(recorded_batch(), 1e-3)
    moved = weights_of(policy)
    policy.update(empty, 1e-3)
    assert not torch.equal(weights_of(policy), moved)  # Adam's momentum, as with a gradient of zeros


def test_a_gradient_that_is_no_number_leaves_everything_as_it_was() -> None:
    events: list[str] = []
    policy = tiny_policy(record_event=lambda name, facts: events.append(name))
    policy.update(recorded_batch(), 1e-3)
    before = {name: tensor.clone() for name, tensor in policy._state_tensors().items()}
    batch = recorded_batch()
    stats = policy.update(replace(batch, advantages=batch.advantages * math.inf), 1e-3)
    assert stats["updates_skipped"] == 1.0
    assert not math.isfinite(stats["loss"])
    assert events == ["update_skipped"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy._state_tensors().items())


def test_out_of_memory_splits_the_micro_batches_and_changes_nothing_else() -> None:
    events: list[Any] = []
    batch = recorded_batch()
    policy = tiny_policy(record_event=lambda name, facts: events.append((name, dict(facts))))
    calls = []

    def fail_on_the_second_and_when_large(module: Any, args: Any, kwargs: Any) -> None:
        calls.append(kwargs["input_ids"].numel())
        if calls[-1] > 60:
            raise torch.OutOfMemoryError("planted")

    expected = gradient_of(tiny_policy(), batch)
    policy.model.base.base_model.register_forward_pre_hook(fail_on_the_second_and_when_large, with_kwargs=True)
    found = gradient_of(policy, batch)
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert {name for name, _ in events} == {"out_of_memory"}
    assert events[-1][1]["tokens_per_micro_batch"] <= 60


def test_out_of_memory_in_the_middle_counts_no_micro_batch_twice() -> None:
    batch = recorded_batch()
    policy, calls = tiny_policy(tokens_per_micro_batch=60), []

    def fail_once_later(module: Any, args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    policy.model.base.base_model.register_forward_pre_hook(fail_once_later)
    expected = gradient_of(tiny_policy(), batch)
    assert (gradient_of(policy, batch) - expected).norm() <= 1e-6 * expected.norm()


def test_one_sequence_that_does_not_fit_is_a_users_problem() -> None:
    policy = tiny_policy()

    def fail(module: Any, args: Any) -> None:
        raise torch.OutOfMemoryError("planted")

    policy.model.base.base_model.register_forward_pre_hook(fail)
    with pytest.raises(UserError, match=r"one sequence of \d+ tokens does not fit into memory; set"):
        policy.update(recorded_batch(), 1e-3)


def test_another_failure_is_not_taken_for_lack_of_memory() -> None:
    policy = tiny_policy()

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("something else")

    policy.model.base.base_model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="something else"):
        policy.update(recorded_batch(), 1e-3)


KINDS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"dtype": torch.bfloat16},
    "8 bit": {"name": "adamw_8bit"},
    "bf16, 8 bit": {"dtype": torch.bfloat16, "name": "adamw_8bit"},
    "lora": {"lora": True},
    "lora, checkpointing": {"lora": True, "gradient_checkpointing": True},
}


def build(kind: dict[str, Any], **settings: Any) -> Policy:
    model = {key: value for key, value in kind.items() if key in ("dtype", "lora")}
    rest = {key: value for key, value in kind.items() if key not in model}
    return tiny_policy(tiny_model(**model), **rest, **settings)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_resumed_policy_repeats_the_uninterrupted_one(kind: dict[str, Any], tmp_path: Path) -> None:
    first = build(kind)
    for seed in range(2):
        first.update(recorded_batch(seed=seed), 1e-3)
    first.save_state(tmp_path)
    second = build(kind)
    second.load_state(tmp_path)
    for policy in (first, second):
        policy.update(recorded_batch(seed=9), 1e-3)
    ours, theirs = first._state_tensors(), second._state_tensors()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_state_of_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    tiny_policy().save_state(tmp_path)
    with pytest.raises(UserError, match="holds another model or optimiser"):
        tiny_policy(tiny_model("llama")).load_state(tmp_path)
    with pytest.raises(UserError, match="holds another model or optimiser"):
        tiny_policy(name="adamw_8bit").load_state(tmp_path)
    with pytest.raises(UserError, match=r"no `policy.safetensors` in it"):
        tiny_policy().load_state(tmp_path / "nowhere")


def test_state_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save_state(tmp_path)
    file = tmp_path / "policy.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        policy.load_state(tmp_path)


def test_a_saved_model_is_what_was_trained(tmp_path: Path) -> None:
    for name, kind in (("full", {}), ("lora", {"lora": True})):
        policy = build(kind)
        policy.update(recorded_batch(), 1e-3)
        policy.save_pretrained(tmp_path / name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)
        expected = policy.model.module(input_ids=torch.arange(3, 9)[None]).logits
        torch.testing.assert_close(loaded(input_ids=torch.arange(3, 9)[None]).logits, expected, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "lora" / "adapter" / "adapter_model.safetensors").is_file()


def test_lora_trains_adapters_only_and_its_reference_is_the_base() -> None:
    policy = build({"lora": True}, beta=0.1)
    base = {name: p.clone() for name, p in policy.model.module.named_parameters() if not p.requires_grad}
    assert all("lora_" in name for name, _ in policy.trainable())
    stats = policy.update(recorded_batch(AlgorithmConfig(beta=0.1)), 1e-3)
    assert stats["kl"] > 1e-6  # the random adapter is not the base
    parameters = dict(policy.model.module.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in base.items())


def test_without_beta_no_reference_is_held() -> None:
    assert tiny_policy(beta=0.0).reference is None


def test_greedy_sampling_teaches_nothing() -> None:
    with pytest.raises(UserError, match=r"rollout\.temperature: at 0"):
        tiny_policy(temperature=0.0)


def test_logs_say_what_ran() -> None:
    stats = tiny_policy(learning_rate=1.0).update(recorded_batch(), 3e-4)
    assert stats["learning_rate"] == 3e-4
    assert stats["tokens_trained"] == int(recorded_batch().trained.sum())


def test_weights_on_disk_hold_the_masters_of_bf16(tmp_path: Path) -> None:
    policy = build({"dtype": torch.bfloat16})
    policy.update(recorded_batch(), 1e-6)
    policy.save_state(tmp_path)
    stored = load_file(tmp_path / "policy.safetensors")
    assert any(stored[name].any() for name in stored if name.startswith("remainder/"))
