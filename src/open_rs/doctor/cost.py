"""What a recipe costs before anything is measured: completions, tokens at most, dollars at the paper's pace."""

from __future__ import annotations

from typing import Any

from open_rs.config.schema import Recipe

PAPER_USD = 42.0  # four A40 for 24 hours at $0.4375 (arXiv 2503.16219)
PAPER_TOKENS = 500 * 12 * 6 * 3584  # the most that its 500 steps of experiment 3 can sample
PAPER_PARAMETERS = "1.5B"


def most_tokens_per_step(recipe: Recipe) -> int:
    """What one step samples if every completion runs into its limit."""
    rollout = recipe.rollout
    return recipe.train.prompts_per_step * rollout.num_generations * rollout.max_completion_length


def usd_at_the_papers_pace(recipe: Recipe) -> float:
    """Dollars if a token cost what it cost the paper; for models of 1.5B, on GPUs like its own."""
    return PAPER_USD * recipe.train.max_steps * most_tokens_per_step(recipe) / PAPER_TOKENS


def listing(recipe: Recipe) -> dict[str, Any]:
    """One row of `open-rs recipes`."""
    train, rollout = recipe.train, recipe.rollout
    return {
        "name": recipe.name,
        "about": recipe.about,
        "model": recipe.model.name_or_path,
        "data": recipe.data.name or recipe.data.path,
        "steps": train.max_steps,
        "completions": train.max_steps * train.prompts_per_step * rollout.num_generations,
        "max_completion_length": rollout.max_completion_length,
        "cost": _cost(recipe),
    }


def _cost(recipe: Recipe) -> str:
    if recipe.budget.usd is not None:
        return f"${recipe.budget.usd:,.0f}, its limit"
    if recipe.budget.hours is not None:
        return f"{recipe.budget.hours:g} hours, its limit"
    if recipe.model.name_or_path == "open-rs-tiny":
        return "minutes of CPU"
    return f"${usd_at_the_papers_pace(recipe):,.0f} at the paper's pace"
