"""Loss, gradients and ten steps of training agree with TRL's GRPO on recorded rollouts (`make oracle`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

trl = pytest.importorskip("trl")
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from open_rs.config.schema import AlgorithmConfig  # noqa: E402
from open_rs.train.batch import Batch, build_batch  # noqa: E402
from open_rs.train.policy import Policy  # noqa: E402
from open_rs.types import Group, Score  # noqa: E402
from train.tiny_policy import LIMIT, REWARDS, recorded, tiny_model, tiny_policy  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]
TEMPERATURE = 0.8
G = len(REWARDS[0])

# What TRL calls our settings. TRL's defaults are pinned where they differ from ours.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({"loss_type": "grpo"}, {"loss_type": "grpo"}),
    "dapo": ({"loss_type": "dapo"}, {"loss_type": "dapo"}),
    "dr_grpo": ({"loss_type": "dr_grpo"}, {"loss_type": "dr_grpo"}),
    "cispo": ({"objective": "cispo", "epsilon_high": 1.1}, {"loss_type": "cispo", "epsilon_high": 1.1}),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    "gspo, dapo weights": ({"importance_sampling_level": "sequence"}, {"importance_sampling_level": "sequence"}),
    "gspo, cispo": (
        {"objective": "cispo", "epsilon_high": 1.1, "importance_sampling_level": "sequence"},
        {"loss_type": "cispo", "epsilon_high": 1.1, "importance_sampling_level": "sequence"},
    ),
    "batch scaling": ({"scale_rewards": "batch"}, {"scale_rewards": "batch"}),
    "no scaling": ({"scale_rewards": "none"}, {"scale_rewards": "none"}),
    "tight clip": ({"epsilon": 0.05}, {"epsilon": 0.05}),
    "wide upper clip": ({"epsilon": 0.1, "epsilon_high": 0.28}, {"epsilon": 0.1, "epsilon_high": 0.28}),
    "two-sided clip": ({"epsilon": 0.1, "delta": 1.25}, {"epsilon": 0.1, "delta": 1.25}),
    "mask truncated, dapo": ({"mask_truncated_completions": True}, {"mask_truncated_completions": True}),
    "mask truncated, grpo": (
        {"mask_truncated_completions": True, "loss_type": "grpo"},
        {"mask_truncated_completions": True, "loss_type": "grpo"},
    ),
    "mask truncated, dr_grpo": (
        {"mask_truncated_completions": True, "loss_type": "dr_grpo"},
        {"mask_truncated_completions": True, "loss_type": "dr_grpo"},
    ),
    "kl, dapo": ({"beta": 0.04}, {"beta": 0.04}),
    "kl, unbiased": (
        {"beta": 0.5, "use_bias_correction_kl": True},
        {"beta": 0.5, "use_bias_correction_kl": True},
    ),
    "kl, grpo": (
        {"beta": 0.5, "loss_type": "grpo"},
        {"beta": 0.5, "loss_type": "grpo"},
    ),
    "kl, gspo, mask truncated": (
        {"beta": 0.5, "importance_sampling_level": "sequence", "mask_truncated_completions": True},
        {
            "beta": 0.5,
            "importance_sampling_level": "sequence",
            "mask_truncated_completions": True,
        },
    ),
}


@dataclass(frozen=True)
class Pair:
    """Our policy and TRL's trainer with the same weights, which differ from the starting model's."""

    ours: Policy
    trl: Any
    groups: list[Group]
    scores: list[list[Score]]

    def batch(self) -> Batch:
        """Our rows, all of them: signal or not, they are compared."""
        return build_batch(self.groups, self.scores, self.algorithm, max_completion_length=LIMIT)

    @property
    def algorithm(self) -> AlgorithmConfig:
        return self.trl.our_algorithm

    def trl_inputs(self) -> dict[str, Any]:
        rows = [{"prompt": group.problem.id} for group in self.groups for _ in range(G)]
        return self.trl._generate_and_score_completions(rows)


def trl_trainer(directory: Path, groups: list[Group], scores: list[list[Score]], **settings: Any) -> Any:
    """TRL's trainer on the model in `directory`; its sampler hands out the recorded rollouts."""
    pairs = [
        (r, s) for group, row in zip(groups, scores, strict=True) for r, s in zip(group.rollouts, row, strict=True)
    ]
    waiting = iter(pairs)

    def serve(prompts: list[str], _: Any) -> dict[str, Any]:
        served = [next(waiting) for _ in prompts]
        return {
            "prompt_ids": [list(rollout.prompt_tokens) for rollout, _ in served],
            "completion_ids": [list(rollout.tokens) for rollout, _ in served],
            "logprobs": [list(rollout.logprobs) for rollout, _ in served],
            "recorded_reward": [score.total for _, score in served],
        }

    def reward(recorded_reward: list[float | None], **_: Any) -> list[float | None]:
        return recorded_reward

    arguments = {
        "output_dir": str(directory / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "num_generations": G,
        "per_device_train_batch_size": len(REWARDS) * G,
        "gradient_accumulation_steps": 1,
        "max_completion_length": LIMIT,
        "temperature": TEMPERATURE,
        "beta": 0.0,
        "use_bias_correction_kl": False,
        "loss_type": "dapo",
        "shuffle_dataset": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=trl.GRPOConfig(**arguments | settings),
        train_dataset=Dataset.from_list([{"prompt": group.problem.id} for group in groups]),
        processing_class=tiny_model().tokenizer,
        rollout_func=serve,
    )


def build_pair(tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], rewards: Any = REWARDS) -> Pair:
    start = tiny_model()
    start.save_pretrained(tmp_path)
    groups, scores = recorded(rewards)
    trainer = trl_trainer(tmp_path, groups, scores, **theirs)
    trainer.our_algorithm = AlgorithmConfig(**ours)
    policy = tiny_policy(start, temperature=TEMPERATURE, tokens_per_micro_batch=40, **ours)
    moved = tiny_model(seed=1).module.state_dict()
    for module in (trainer.model, policy.model.module):
        state = {name: 0.9 * value + 0.1 * moved[name] for name, value in module.state_dict().items()}
        module.load_state_dict(state)
    return Pair(policy, trainer, groups, scores)


def trl_loss_and_gradient(trainer: Any, inputs: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def our_loss_and_gradient(
    policy: Policy, batch: Batch, old: torch.Tensor | None
) -> tuple[float, dict[str, torch.Tensor]]:
    batch, _ = policy._with_fixed_logprobs(batch)
    rows = range(len(batch.lengths))
    tally = policy._retried(batch, rows, lambda plans: policy._accumulate(batch, plans, old))
    gradients = {name: p.grad for name, p in policy.trainable()}
    policy.optimizer.zero_grad()
    return tally.reduce(lambda x: x, lambda x: x)["loss"], gradients


def assert_agree(ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5, abs=1e-7)
    assert ours[1].keys() == theirs[1].keys()
    for name, expected in theirs[1].items():
        distance = (ours[1][name] - expected).norm() / expected.norm()
        assert distance < 1e-5, f"{name}: {distance:.1e}"


def drifted(pair: Pair, batch: Batch, inputs: dict[str, Any], scale: float) -> tuple[torch.Tensor, dict[str, Any]]:
    """Older log-probabilities, so that ratios leave 1 both ways: ours [N, T], and TRL's inputs with the same."""
    places: dict[tuple[int, ...], list[int]] = {}
    for n, (tokens, length) in enumerate(zip(batch.tokens, batch.lengths, strict=True)):
        places.setdefault(tuple(tokens[:length].tolist()), []).append(n)
    old = pair.ours.logprobs(batch)
    noise = torch.randn(old.shape, generator=torch.Generator().manual_seed(0)) * scale
    old = (old + noise) * batch.trained
    theirs = torch.zeros(inputs["completion_ids"].shape)
    for row, rollout in enumerate(r for group in pair.groups for r in group.rollouts):
        waiting = places.get(rollout.prompt_tokens + rollout.tokens)
        if waiting:
            n = waiting.pop(0)
            theirs[row, : len(rollout.tokens)] = old[n][batch.trained[n]]
    return old, inputs | {"old_per_token_logps": theirs}


@pytest.mark.parametrize("drift", [0.0, 0.3], ids=["on policy", "off policy"])
@pytest.mark.parametrize(("ours", "theirs"), SETTINGS.values(), ids=SETTINGS.keys())
def test_loss_and_gradients_agree(tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], drift: float) -> None:
    pair = build_pair(tmp_path, ours | {"sampler_correction_cap": None}, theirs)
    batch, inputs = pair.batch(), pair.trl_inputs()
    old = None
    if drift:
        old, inputs = drifted(pair, batch, inputs, drift)
    assert_agree(our_loss_and_gradient(pair.ours, batch, old), trl_loss_and_gradient(pair.trl, inputs))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_sampler_correction_agrees(tmp_path: Path, level: str) -> None:
    theirs = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.5}
    shared = {"importance_sampling_level": level}
    pair = build_pair(tmp_path, {"sampler_correction_cap": 1.5, **shared}, theirs | shared)
    pair.trl.use_vllm = True  # as far as the loss is concerned; the rollouts are recorded ones
    pair.trl._last_loaded_step = pair.trl.state.global_step
    batch, inputs = pair.batch(), pair.trl_inputs()
    assert 0.1 < (inputs["importance_sampling_ratio"] == 1.5).float().mean() < 0.9  # it acts, and not everywhere
    assert_agree(our_loss_and_gradient(pair.ours, batch, None), trl_loss_and_gradient(pair.trl, inputs))


def test_release_rule_is_a_micro_batch_per_group_of_the_old_token_mean(tmp_path: Path) -> None:
    pair = build_pair(tmp_path, {"loss_type": "release", "beta": 0.04}, {"loss_type": "bnpo", "beta": 0.04})
    batch, inputs = pair.batch(), pair.trl_inputs()
    parts = [{k: v[q * G : (q + 1) * G] if v.dim() else v for k, v in inputs.items()} for q in range(len(REWARDS))]
    found = [trl_loss_and_gradient(pair.trl, part) for part in parts]
    loss = sum(loss for loss, _ in found) / len(found)
    gradients = {name: sum(g[name] for _, g in found) / len(found) for name in found[0][1]}
    policy = tiny_policy_without_correction(pair)
    assert_agree(our_loss_and_gradient(policy, batch, None), (loss, gradients))


def tiny_policy_without_correction(pair: Pair) -> Policy:
    pair.ours.objective = replace(pair.ours.objective, sampler_cap=None)
    return pair.ours


@pytest.mark.parametrize("ours", [{"loss_type": "dapo"}, {"loss_type": "grpo", "beta": 0.1}], ids=["dapo", "grpo, kl"])
def test_ten_steps_end_at_the_same_weights(tmp_path: Path, ours: dict[str, Any]) -> None:
    start = tiny_model()
    start.save_pretrained(tmp_path)
    before = {name: p.detach().clone() for name, p in start.module.named_parameters()}
    steps = [recorded(REWARDS, seed) for seed in range(10)]
    groups, scores = [g for gs, _ in steps for g in gs], [row for _, rows in steps for row in rows]
    training = {"learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_steps": 10}
    trainer = trl_trainer(tmp_path, groups, scores, **training, **ours)
    trainer.train()
    policy = tiny_policy(start, temperature=TEMPERATURE, sampler_correction_cap=None, **ours)
    for gs, rows in steps:
        policy.update(build_batch(gs, rows, AlgorithmConfig(**ours), max_completion_length=LIMIT), 1e-3)
    theirs = dict(trainer.model.named_parameters())

    def distance(left: dict[str, Any], right: dict[str, Any]) -> float:
        return torch.cat([(left[name] - right[name]).detach().flatten() for name in left]).norm().item()

    norm = torch.cat([value.flatten() for value in before.values()]).norm().item()
    moved = distance(before, theirs)
    assert moved >= 1e-2 * norm
    assert distance(dict(policy.trainable()), theirs) <= 1e-3 * moved
