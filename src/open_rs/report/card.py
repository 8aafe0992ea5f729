"""The model card of a run: what was trained, on what, what it is worth, and what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from open_rs.run_dir import RunDir

SETS = {  # sets of `summary.json`, in words
    "held_out": "held-out problems",
    "one_operand_longer": "one operand longer than any in this training",
}


def model_card(run: RunDir, repo_id: str) -> str:
    """Markdown with the Hub's front matter, from the run's recipe, summary and environment.

    A run without held-out problems says so in place of a result: a card never claims what was not measured.
    """
    recipe = yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))
    summary, environment = run.read_json("summary.json"), run.read_json("environment.json")
    front = {
        "base_model": recipe["model"]["name_or_path"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reinforcement-learning", "grpo", "open-rs"],
        **({"datasets": [recipe["data"]["name"]]} if "/" in str(recipe["data"]["name"]) else {}),
    }
    header = yaml.safe_dump(front, sort_keys=False)
    parts = [
        f"---\n{header}---",
        f"# {repo_id}",
        f"Trained with Open-RS from `{recipe['model']['name_or_path']}` by the recipe `{recipe['name']}`: "
        f"{summary['steps']} steps of {recipe['train']['prompts_per_step']} problems with "
        f"{recipe['rollout']['num_generations']} samples each, seed {recipe['train']['seed']}.",
        "## What it is worth",
        _results(summary),
        "## What it cost",
        _cost(summary),
        "## How it was made",
        f"```yaml\n{(run.path / 'recipe.yaml').read_text(encoding='utf-8')}```",
        "## Software",
        "\n".join(f"- {name} {version}" for name, version in environment["packages"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _results(summary: Mapping[str, Any]) -> str:
    if "sets" not in summary:
        return "Not measured: the run held no problems out. Evaluate it before you trust it (`open-rs evaluate`)."
    lines = [
        "| right answers, sampled | before | after | paired difference, 95 % interval |",
        "| --- | --- | --- | --- |",
    ]
    for name, sides in summary["sets"].items():
        difference = sides["differences"]["avg"]
        low, high = (100 * bound for bound in difference["ci95"])
        lines.append(
            f"| {SETS.get(name, name)}, {sides['base']['num_problems']} problems x {sides['base']['samples']} samples "
            "| "
            f"{100 * sides['base']['avg']:.1f} % | {100 * sides['trained']['avg']:.1f} % | "
            f"{100 * difference['value']:+.1f} ({low:+.1f} to {high:+.1f}), p {difference['p_value']:.2g} |"
        )
    return "\n".join(lines)


def _cost(summary: Mapping[str, Any]) -> str:
    hours, tokens = summary["seconds"]["total"] / 3600, summary["tokens"]
    dollars = "" if summary.get("usd") is None else f", ${summary['usd']:.2f}"
    return f"{hours:.2f} hours of wall time{dollars}, {tokens.get('sampled', 0):,} tokens sampled."
