"""`open-rs check`: examine a recipe before money is spent."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


@click.command(epilog="Example:  open-rs check demo")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[section.key=value ...]")
@click.option("--allow-constant-reward", is_flag=True, help="Go on although every completion earned the same.")
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
def command(recipe: str, overrides: tuple[str, ...], allow_constant_reward: bool, as_json: bool) -> None:
    """Check RECIPE: its prompt, eight real rollouts with their rewards, memory, time and dollars.

    Nothing is written. The exit code is 2 where the run would teach nothing.
    """
    from open_rs.cli.translate import show_translation
    from open_rs.config.load import load
    from open_rs.doctor.examine import examine

    loaded = load(recipe, overrides)
    if loaded.translation is not None:
        show_translation(loaded.translation)
    diagnosis = examine(loaded.recipe, allow_constant_reward)
    if as_json:
        click.echo(json.dumps(diagnosis.as_json(), indent=2))
    else:
        _print(diagnosis)
    if diagnosis.is_refused:
        sys.exit(2)


def _print(diagnosis: Any) -> None:
    from open_rs.config.load import resolved_yaml
    from open_rs.doctor.examine import rollout_rows
    from open_rs.train.memory import show_bytes

    _section("recipe", resolved_yaml(diagnosis.recipe))
    _section(f"first prompt, {len(diagnosis.prompts.first_tokens)} tokens", diagnosis.prompts.first)
    rows = rollout_rows(diagnosis.sampled)
    _section(f"{len(rows)} rollouts", "\n".join(_rollout_line(row) for row in rows))
    _section("first completion", rows[0]["text"])
    for moment in ("updating", "sampling"):
        items = getattr(diagnosis.memory, moment)
        lines = [f"{show_bytes(size):>12}  {item}" for item, size in items.items() if size]
        _section(f"memory while {moment}", "\n".join([*lines, f"{show_bytes(sum(items.values())):>12}  together"]))
    _section("findings", "\n".join(f"{f.level:8} {f.topic}: {f.text}" for f in diagnosis.findings))


def _rollout_line(row: dict[str, Any]) -> str:
    verdict = {True: "right", False: "wrong", None: "unscorable"}[row["correct"]]
    terms = "  ".join(f"{name} {'-' if value is None else f'{value:.3g}'}" for name, value in row["terms"].items())
    total = "-" if row["reward"] is None else f"{row['reward']:.3g}"
    cut = "cut off" if row["finish"] == "length" else "stopped"
    return f"{row['problem_id']:20} {row['tokens']:6} tokens  {cut}  {verdict:10}  {terms}  reward {total}"


def _section(title: str, body: str) -> None:
    click.secho(title, bold=True)
    click.echo("\n".join(f"  {line}" for line in body.rstrip().splitlines()) + "\n")
