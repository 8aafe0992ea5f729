"""`open-rs curate`: make a training set from a pool; `curate check` and `curate diff` look at finished sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from open_rs.types import UserError

DATA_HELP = "A folder with local copies of sources and benchmarks, looked in before the Hub; may be given again."


class DefaultGroup(click.Group):
    """A group whose first word is a subcommand, or else a recipe for the subcommand `run`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("--") and args[0] not in ("--help",):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=DefaultGroup,
    epilog="Example:  open-rs curate open-rs --data ../shared/data/train --data ../shared/data/benchmarks --plan",
)
def command() -> None:
    """Make a training set from a pool, with a reason for each row dropped.

    \b
    open-rs curate RECIPE [key=value ...]   RECIPE: open-s1, open-deepscaler, open-rs, or a YAML file
    open-rs curate check DATA               what of a set repeats a benchmark
    open-rs curate diff A B                 how two sets differ

    All options of the first form: open-rs curate run --help
    """


@command.command("run", epilog="Example:  open-rs curate open-s1 sources.0.limit=500 --data copies --out sets/small")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[key=value ...]")
@click.option("--data", "directories", multiple=True, type=click.Path(path_type=Path), help=DATA_HELP)
@click.option("--out", type=click.Path(path_type=Path), help="Where the set is written; default: sets/RECIPE.")
@click.option("--cache", "cache_directory", type=click.Path(path_type=Path), help="Finished stages and samples.")
@click.option("--plan", "only_plan", is_flag=True, help="Say what it will cost, and do nothing.")
@click.option("--tokens-per-second", type=click.FloatRange(min=0, min_open=True), help="For hours in the plan.")
@click.option("--gpu-hour-usd", type=click.FloatRange(min=0), help="For dollars in the plan.")
@click.option("--json", "as_json", is_flag=True, help="Print the funnel or the plan as JSON.")
def run(
    recipe: str,
    overrides: tuple[str, ...],
    directories: tuple[Path, ...],
    out: Path | None,
    cache_directory: Path | None,
    only_plan: bool,
    tokens_per_second: float | None,
    gpu_hour_usd: float | None,
    as_json: bool,
) -> None:
    """Run a curation recipe: load, filter, deduplicate, decontaminate, measure, select; then write the set.

    Finished stages are cached by content, and sampled completions one by one: start again after a crash with the same
    command. The set directory holds train.jsonl, data/train.parquet, README.md (the card), manifest.json, funnel.json
    and dropped.jsonl.gz with every row that was left out and why.
    """
    from open_rs.config.curation import load_curation

    loaded = load_curation(recipe, overrides)
    places = (*loaded.directories, *(str(_existing(place)) for place in directories))
    loaded = loaded.model_copy(update={"directories": places})
    if only_plan:
        _show_plan(loaded, tokens_per_second, gpu_hour_usd, as_json)
        return
    from open_rs.data.curate import as_rows, curate, default_cache
    from open_rs.data.publish import write_set

    with _progress(as_json) as (watch, say):
        curated = curate(loaded, cache_directory or default_cache(), watch=watch, say=say)
        written = write_set(curated, out or Path("sets") / loaded.name)
    if as_json:
        click.echo(
            json.dumps({"directory": str(written.directory), "rows": written.rows, "funnel": as_rows(curated.steps)})
        )
        return
    _show_funnel(as_rows(curated.steps))
    held_out = f", {written.held_out_rows:,} held out" if written.held_out_rows else ""
    click.echo(f"\n{written.rows:,} rows{held_out} in {written.directory}; card: {written.directory / 'README.md'}")
    click.echo(f"train on it:  open-rs train RECIPE data.path={written.directory}")


@command.command("check", epilog="Example:  open-rs curate check sets/open-rs --against aime24,math_500 --data copies")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--against", default="all", show_default=True, help="Benchmarks, separated by commas.")
@click.option("--data", "directories", multiple=True, type=click.Path(path_type=Path), help=DATA_HELP)
@click.option("--json", "as_json", is_flag=True, help="Print every pair as JSON.")
def check(data: Path, against: str, directories: tuple[Path, ...], as_json: bool) -> None:
    """Find the problems of DATA that repeat a benchmark problem. Exit code 1 where there are any."""
    from open_rs.data.inspect import check_overlap, read_set
    from open_rs.data.intake import open_benchmarks
    from open_rs.data.stages import evidence_of

    names = "all" if against == "all" else [name.strip() for name in against.split(",") if name.strip()]
    items = open_benchmarks(names, [_existing(place) for place in directories])
    problems = read_set(data)
    overlaps = check_overlap(problems, items)
    if as_json:
        pairs = [{"id": overlap.problem.id, **evidence_of(overlap)} for overlap in overlaps]
        click.echo(json.dumps({"rows": len(problems), "overlaps": pairs}, indent=2))
    else:
        for overlap in overlaps:
            item = overlap.item
            click.echo(f"{overlap.kind}, {overlap.coverage:.0%} of {item.id} in {overlap.problem.id}")
            click.echo(f"  theirs ({_brief(item.answer, 40)}): {_brief(item.question)}")
            click.echo(f"  ours   ({_brief(overlap.problem.answer, 40)}): {_brief(overlap.problem.question)}")
        click.echo(f"{len(overlaps)} of {len(problems):,} problems repeat one of {len(items):,} benchmark problems")
    if overlaps:
        raise SystemExit(1)


@command.command("diff", epilog="Example:  open-rs curate diff sets/open-rs sets/open-rs-2")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Say which rows two sets don't share, and which they state differently."""
    from open_rs.data.inspect import difference, read_set

    found = difference(read_set(first), read_set(second))
    changed = [{"first": one.id, "second": other.id, "columns": list(names)} for one, other, names in found.changed]
    if as_json:
        value = {
            "rows": found.rows,
            "only_first": [problem.id for problem in found.only_first],
            "only_second": [problem.id for problem in found.only_second],
            "changed": changed,
            "by_source": found.by_source,
        }
        click.echo(json.dumps(value, indent=2))
        return
    click.echo(f"{first}: {found.rows[0]:,} rows, {len(found.only_first):,} of them not in the other")
    click.echo(f"{second}: {found.rows[1]:,} rows, {len(found.only_second):,} of them not in the other")
    click.echo(f"{len(changed):,} rows in both with different values")
    for row in changed[:10]:
        click.echo(f"  {row['first']}: {', '.join(row['columns'])}")
    for name, (ours, theirs) in found.by_source.items():
        click.echo(f"  source {name or 'not stated'}: {ours:,} -> {theirs:,}")


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise UserError(f"--data {directory}: no such directory")
    return directory


def _brief(text: str, length: int = 150) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[:length]}..."


@contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """A bar for each step on a terminal; nothing where output goes to a file. Messages go to stderr either way."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def watch(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total or None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield watch, lambda line: console.print(line, markup=False)


def _show_funnel(steps: list[dict[str, Any]]) -> None:
    from rich.table import Table

    published = any(step["published_rows"] is not None for step in steps)
    table = Table("step", "in", "kept", "dropped, and why", box=None, header_style="bold", pad_edge=False)
    if published:
        table.add_column("paper")
    for step in steps:
        why = "\n".join(f"{count:,} {reason}" for reason, count in step["reasons"].items())
        paper = "" if step["published_rows"] is None else f"{step['published_rows']:,}"
        cells = [step["name"], f"{step['rows_in']:,}", f"{step['kept']:,}", why]
        table.add_row(*cells, *([paper] if published else []))
    _console().print(table)


def _show_plan(recipe: Any, tokens_per_second: float | None, gpu_hour_usd: float | None, as_json: bool) -> None:
    from dataclasses import asdict

    from open_rs.data.plan import plan

    if gpu_hour_usd is not None and tokens_per_second is None:
        raise UserError("--gpu-hour-usd: dollars need hours; give --tokens-per-second as well")
    costs = list(plan(recipe))
    rows = [asdict(cost) for cost in costs]
    for row, cost in zip(rows, costs, strict=True):
        hours = cost.hours(tokens_per_second) if tokens_per_second else None
        row["hours"] = hours
        del row["sampler"]
        row["usd"] = hours * gpu_hour_usd if hours is not None and gpu_hour_usd is not None else None
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _print_plan(rows)


def _print_plan(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("step", "rows in", "kept at most", "samples", "tokens", "hours", "USD", "model"):
        table.add_column(name)
    keys = (("rows", "{:,}"), ("kept", "{:,}"), ("samples", "{:,.0f}"), ("tokens", "{:,.0f}"), ("hours", "{:,.2f}"))
    keys = (*keys, ("usd", "{:,.2f}"), ("model", "{}"))
    for row in rows:
        table.add_row(row["name"], *("" if row[key] is None else form.format(row[key]) for key, form in keys))
    sums = {key: sum(row[key] or 0 for row in rows) for key in ("samples", "tokens", "hours", "usd")}
    forms = dict(keys)
    table.add_row("in all", "", "", *(forms[key].format(value) if value else "" for key, value in sums.items()), "")
    _console().print(table)


def _console() -> Any:
    """Wide enough for the table where output goes to a file."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, highlight=False, width=160)
