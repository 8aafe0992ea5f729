"""`open-rs demo`: the main job on the embedded default, on a CPU, offline."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(epilog="Example:  open-rs demo --seed 1 --out runs/demo-seed-1")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; default: the next free runs/demo.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(out: Path | None, seed: int, as_json: bool) -> None:
    """Take a tiny model from wrong to right in six minutes, and prove it.

    The embedded model answers multi-step arithmetic, often skipping steps. Sixty steps of reinforcement learning, with
    format and accuracy rewards, teach it not to; the same held-out problems before and after show what that was worth.
    """
    from open_rs.cli.show import finish_run
    from open_rs.config.load import load_recipe
    from open_rs.report.live import Live
    from open_rs.run_dir import next_free
    from open_rs.train.run import train

    directory = out or next_free(Path("runs") / "demo")
    with Live() as live:
        summary = train(load_recipe("demo", [f"train.seed={seed}"]), directory, live)
    finish_run(directory, summary)
    if as_json:
        click.echo(json.dumps(summary, indent=2))
