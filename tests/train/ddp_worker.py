"""One process of several that train together: `python ddp_worker.py OUT`, started with torchrun's variables set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from open_rs.config.schema import AlgorithmConfig
from open_rs.train.batch import build_batch
from open_rs.train.policy import Policy
from train.tiny_policy import LIMIT, recorded, tiny_model, tiny_policy

STEPS, RATE = 5, 3e-4
# Groups go to ranks in turn, so the first of two gets both groups without signal, and fewer rows than the other.
REWARDS = [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 3.0, 0.0]]
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"scale_rewards": "batch"},
    "full, kl": {"beta": 0.1, "loss_type": "grpo"},
    "lora": {"lora": True, "loss_type": "release"},
    "lora, kl": {"lora": True, "beta": 0.1, "num_minibatches": 2},
    "8 bit, bf16": {"name": "adamw_8bit", "dtype": torch.bfloat16},
    "empty rank": {"rewards": [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]},
}


def train(variant: str) -> tuple[Policy, list[dict[str, float]]]:
    """Five steps of a variant, on this process's share of the groups."""
    settings = dict(VARIANTS[variant])
    rewards = settings.pop("rewards", REWARDS)
    model = {key: settings.pop(key) for key in ("lora", "dtype") if key in settings}
    policy = tiny_policy(tiny_model(**model), tokens_per_micro_batch=30, prompts_per_step=len(rewards), **settings)
    algorithm = AlgorithmConfig(**{k: v for k, v in settings.items() if k in AlgorithmConfig.model_fields})
    rank, ranks = policy.accelerator.process_index, policy.accelerator.num_processes
    logs = []
    for step in range(STEPS):
        groups, scores = (share[rank::ranks] for share in recorded(rewards, seed=step))
        batch = build_batch(
            groups, scores, algorithm, max_completion_length=LIMIT, sum_over_ranks=policy.sum_over_ranks
        )
        logs.append(policy.update(batch, RATE))
    return policy, logs


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for variant in VARIANTS:
        policy, logs = train(variant)
        found[variant] = {"weights": {name: p.detach() for name, p in policy.trainable()}, "logs": logs}
    out = Path(sys.argv[1])
    torch.save(found, out / f"rank-{policy.accelerator.process_index}.pt")


if __name__ == "__main__":
    main()
