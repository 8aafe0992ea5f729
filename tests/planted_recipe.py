"""A recipe of six quick steps on the tiny random model, for tests that need a whole run."""

from __future__ import annotations

from pathlib import Path

from open_rs.config.load import load_recipe
from open_rs.config.schema import Recipe


def settings(checkpoint: Path, *more: str) -> list[str]:
    return [
        f"model.name_or_path={checkpoint}",
        "model.device=cpu",
        "reward.terms=[{name: 'planted_rewards:even_share'}]",
        "rollout.max_completion_length=16",
        "rollout.num_generations=4",
        "train.prompts_per_step=4",
        "train.max_steps=6",
        "train.save_steps=2",
        "optimizer.learning_rate=0.003",
        "validation.num_problems=4",
        "validation.samples=2",
        "validation.every_steps=3",
        *more,
    ]


def recipe(checkpoint: Path, *more: str) -> Recipe:
    return load_recipe("demo", settings(checkpoint, *more))
