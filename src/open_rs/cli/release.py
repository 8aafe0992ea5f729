"""`open-rs release`: write the card of a trained model or a curated set, and push it when asked."""

from __future__ import annotations

from pathlib import Path

import click

from open_rs.types import UserError


@click.command(epilog="Example:  open-rs release runs/demo --repo-id me/tiny-arithmetic")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--repo-id", required=True, help="NAME/REPOSITORY on the Hub.")
@click.option("--push", "is_pushed", is_flag=True, help="Upload; without it nothing leaves this machine.")
@click.option("--public", is_flag=True, help="Make a new repository public; default: private.")
def command(directory: Path, repo_id: str, is_pushed: bool, public: bool) -> None:
    """Prepare DIRECTORY, a run or a curated set, for the Hub: its card says what it is worth and what it cost.

    A run releases its model (merged, and the adapter beside it where there is one); a curated set its Parquet and JSONL
    files, card and manifest.
    """
    from open_rs.report.hub import push

    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise UserError(f"--repo-id {repo_id}: write it as NAME/REPOSITORY")
    if (directory / "recipe.yaml").is_file():
        place, kind = prepare_run(directory, repo_id), "model"
    elif (directory / "manifest.json").is_file():
        from open_rs.data.inspect import verify_set

        verify_set(directory)
        place, kind = directory, "dataset"
    else:
        raise UserError(f"{directory}: neither a run (recipe.yaml) nor a curated set (manifest.json); give one of them")
    click.echo(f"card     {place / 'README.md'}")
    if is_pushed:
        click.echo(f"pushed   {push(place, repo_id, kind, private=not public)}")
    else:
        click.echo(f"ready    {place}; add --push to upload it")


def prepare_run(directory: Path, repo_id: str) -> Path:
    """Write the card into the run's model directory, and return that directory."""
    from open_rs.report.card import model_card
    from open_rs.run_dir import RunDir

    run = RunDir.open(directory)
    if not (directory / "summary.json").is_file() or not (directory / "model").is_dir():
        raise UserError(f"{directory}: the run has not ended; finish it with `open-rs train --resume {directory}`")
    run.write_text("model/README.md", model_card(run, repo_id))
    return directory / "model"
