"""`open-rs evaluate`: measure a model on benchmarks, with intervals; or grade and read what others have measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from open_rs.types import UserError

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Asked:
    """The options that say how to ask; the same for the model, its baseline and its checkpoints."""

    benchmarks: tuple[str, ...]
    preset: str | None
    protocol: str | None
    engine: str
    url: str
    served_model: str | None
    api: str
    samples: int | None
    until_se: float | None
    data: Path | None
    limit: int | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    raw_gold: bool
    dtype: str
    device: str
    max_concurrent: int

    @property
    def changes(self) -> dict[str, Any]:
        """Options that make another evaluation of the same model under the same protocol."""
        names = ("limit", "max_tokens", "temperature", "seed", "raw_gold")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}


@click.command(
    epilog="""\b
Examples:
  open-rs evaluate open-rs-tiny
  open-rs evaluate knoveleng/Open-RS3 --benchmarks aime24,amc23 --samples 16 --engine vllm
  open-rs evaluate runs/demo --checkpoints all --select validation
  open-rs evaluate --load-outputs completions.jsonl.gz"""
)
@click.argument("model", metavar="MODEL_OR_RUN", required=False)
@click.option("--benchmarks", default="", help="Names (see `open-rs sources`), `arithmetic`, or files, with commas.")
@click.option("--preset", type=click.Choice(["quick", "standard", "full"]), help="Benchmarks and samples together.")
@click.option("--protocol", help="open-rs, sober, deepscaler or plain; default: the run's own, else open-rs.")
@click.option("--engine", type=click.Choice(["local", "vllm", "endpoint"]), default="local", show_default=True)
@click.option("--url", default="http://127.0.0.1:8000/v1", show_default=True, help="Server of --engine endpoint.")
@click.option("--served-model", help="Name under which the server holds the model; default: its only one.")
@click.option("--api", type=click.Choice(["completions", "chat"]), default="completions", show_default=True)
@click.option("--samples", type=int, help="Samples a problem; more than before extends an earlier evaluation.")
@click.option("--until-se", type=float, help="Sample until the sampling error of each benchmark is so many points.")
@click.option("--baseline", help="A result directory, or a model that is asked the same: paired; or a published name.")
@click.option("--data", type=PATH, help="Folder with local copies of the benchmarks; default: the Hub.")
@click.option("--limit", type=click.IntRange(1), help="Only the first problems of each benchmark.")
@click.option("--max-tokens", type=click.IntRange(1), help="Instead of the protocol's limit.")
@click.option("--temperature", type=click.FloatRange(0), help="Instead of the protocol's; 0 is greedy.")
@click.option("--seed", type=int, help="Another seed gives other samples.")
@click.option("--raw-gold", is_flag=True, help="Grade against uncorrected golds, unsolvable problems included.")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--max-concurrent", type=click.IntRange(1), default=64, show_default=True)
@click.option("--out", type=PATH, help="Result directory; what is there already is not sampled again.")
@click.option("--checkpoints", type=click.Choice(["all"]), help="Every checkpoint of a run, on its held-out problems.")
@click.option("--select", type=click.Choice(["validation"]), help="Take the best checkpoint on to the benchmarks.")
@click.option("--regrade", type=PATH, metavar="DIR", help="Grade a result directory again; nothing is generated.")
@click.option("--load-outputs", type=PATH, metavar="FILE", help="Grade completions made elsewhere.")
@click.option("--from-lighteval", type=PATH, metavar="DIR", help="Read lighteval's results; add intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    model: str | None,
    benchmarks: str,
    baseline: str | None,
    out: Path | None,
    checkpoints: str | None,
    select: str | None,
    regrade: Path | None,
    load_outputs: Path | None,
    from_lighteval: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a model: a Hub id, a directory, a training run, or `open-rs-tiny`.

    Every completion and verdict is on disk as it arrives; the same command goes on after an interruption. Scores are
    means over all samples with 95 % intervals over problems.
    """
    asked = Asked(tuple(name for name in benchmarks.split(",") if name), **options)
    sources = [s for s in (model, regrade, load_outputs, from_lighteval) if s is not None]
    if len(sources) != 1:
        raise UserError("evaluate: give one of MODEL_OR_RUN, --regrade, --load-outputs, --from-lighteval")
    if asked.samples is not None and asked.samples < 1:
        raise UserError(f"--samples {asked.samples}: nothing to measure; ask for at least 1 sample a problem")
    if select is not None and checkpoints is None:
        raise UserError("--select: chooses among a run's checkpoints; add --checkpoints all")
    if baseline is not None and (model is None or checkpoints is not None):
        raise UserError("--baseline: goes with MODEL_OR_RUN alone; afterwards, `open-rs compare BASELINE DIR` compares")
    if from_lighteval is not None:
        found = show_rows(read_lighteval(from_lighteval), as_json)
    elif load_outputs is not None:
        found = show_evaluations(grade_file(load_outputs, asked, out), as_json, None)
    elif regrade is not None:
        found = show_evaluations([grade_again(regrade)], as_json, regrade)
    elif checkpoints is not None:
        found = sweep_run(sources[0], asked, select is not None, out, as_json)
    else:
        found = evaluate_model(sources[0], asked, out, baseline, as_json)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@dataclass(frozen=True)
class Plan:
    """Which sets are asked, and how; a baseline that is asked the same shares it."""

    benchmarks: tuple[str, ...]
    protocol: Any


def evaluate_model(name: Any, asked: Asked, out: Path | None, baseline: str | None, as_json: bool) -> Any:
    """Evaluate, show, and compare with the baseline where there is one."""
    from open_rs.cli.results import show_difference
    from open_rs.evaluate.subject import choose_benchmarks, find_subject

    subject = find_subject(name, asked.dtype, asked.device)
    benchmarks = choose_benchmarks(subject, asked.benchmarks, asked.preset)
    plan = Plan(benchmarks, protocol_for(subject, benchmarks, asked))
    known = None if baseline is None else known_baseline(baseline, name, plan, asked)
    evaluation, directory = measure(subject, plan, asked, out)
    shown = show_evaluations([evaluation], as_json, directory)
    if baseline is None:
        if not as_json:
            click.echo("note: no --baseline: a score alone says nothing of a gain")
        return shown
    shown_other: Any = baseline
    if known is None:
        known, place = measure(find_subject(baseline, asked.dtype, asked.device), plan, asked, None)
        shown_other = show_evaluations([known], as_json, place)
    return {"evaluation": shown, "baseline": shown_other, "comparison": show_difference(evaluation, known, as_json)}


def known_baseline(baseline: str, name: str, plan: Plan, asked: Asked) -> Any:
    """A result directory or a published row; None for a model that is asked the same.

    A Hub id is asked and not read off a table, except where the engine is a server, which holds the candidate alone.

    Raises UserError before anything is sampled where the two could not be compared in the end.
    """
    from open_rs.evaluate import published
    from open_rs.evaluate.compare import check_protocol
    from open_rs.evaluate.result import RESULTS, Evaluation

    if (Path(baseline) / RESULTS).is_file():
        evaluation = Evaluation.load(Path(baseline))
        check_protocol(name, plan.protocol, evaluation)
        return evaluation
    if asked.engine == "endpoint":
        return published.require(baseline)
    return None if "/" in baseline or Path(baseline).exists() else published.find(baseline)


def measure(subject: Any, plan: Plan, asked: Asked, out: Path | None) -> tuple[Any, Path]:
    """Ask a model what the plan says; returns the evaluation and its directory."""
    from open_rs.evaluate.subject import seat

    sets = load(plan.benchmarks, asked)
    directory = out or subject.default_directory(plan.protocol, asked.changes)
    with seat(subject, asked.engine, endpoint_of(asked), asked.max_concurrent) as chair:
        return run(subject.name, sets, plan.protocol, asked, chair, directory), directory


def run(label: str, sets: Any, protocol: Any, asked: Asked, chair: Any, directory: Path | None) -> Any:
    """One evaluation with a progress line; with --until-se, as many as it takes."""
    from open_rs.evaluate.run import evaluate
    from open_rs.evaluate.until import until

    def once(settings: Any) -> Any:
        with Progress() as progress:
            return evaluate(
                chair.engine,
                chair.tokenizer,
                sets.problems,
                settings,
                model=label,
                out=directory,
                raw_gold=asked.raw_gold,
                dropped=sets.dropped,
                context_length=chair.context_length,
                about=chair.about,
                progress=progress,
            )

    if asked.until_se is None:
        return once(protocol)
    return until(asked.until_se / 100, protocol, list(sets.problems), once)


def load(names: Sequence[str], asked: Asked) -> Any:
    from open_rs.evaluate.benchmarks import load_sets

    return load_sets(names, asked.data, asked.limit)


def protocol_for(subject: Any, names: Sequence[str], asked: Asked) -> Any:
    """The chosen protocol with what the command line replaces in it."""
    from open_rs.evaluate.protocols import PRESETS
    from open_rs.evaluate.subject import choose_protocol

    protocol = choose_protocol(subject, asked.protocol, names)
    changes: dict[str, Any] = {
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "seed": asked.seed,
        "samples": asked.samples,
    }
    if asked.preset is not None and asked.samples is None:
        preset = PRESETS[asked.preset]
        changes |= {"samples": preset.samples, "samples_of": preset.samples_of}
    elif asked.samples is not None:
        changes["samples_of"] = {}
    return replace(protocol, **{name: value for name, value in changes.items() if value is not None})


def endpoint_of(asked: Asked) -> Any:
    from open_rs.config.schema import EndpointConfig

    values = {"url": asked.url, "model": asked.served_model, "api": asked.api, "max_concurrent": asked.max_concurrent}
    return EndpointConfig(**values)


def sweep_run(name: Any, asked: Asked, select_best: bool, out: Path | None, as_json: bool) -> Any:
    """Every checkpoint on the run's held-out problems; with --select, the winner on the benchmarks as well."""
    from open_rs.evaluate.benchmarks import Sets
    from open_rs.evaluate.plots import draw_checkpoints
    from open_rs.evaluate.rows import row_of
    from open_rs.evaluate.subject import choose_benchmarks, open_run, seat
    from open_rs.evaluate.sweep import HELD_OUT, checkpoints, held_out_problems, load_checkpoint, select
    from open_rs.report.page import write_report

    if asked.engine == "endpoint":
        raise UserError("--checkpoints: a server holds one model; use --engine local or vllm")
    subject, directory = open_run(name, asked.dtype, asked.device)
    places, held_out = checkpoints(directory), Sets({HELD_OUT: held_out_problems(directory)[: asked.limit]})
    protocol = protocol_for(subject, (), asked)
    results = out or directory / "results" / "checkpoints"
    with seat(subject, asked.engine, endpoint_of(asked), asked.max_concurrent) as chair:

        def evaluate_checkpoint(place: Path, sets: Any, settings: Any) -> Any:
            assert chair.model is not None, "only a server has no model here"
            load_checkpoint(chair.model, place)
            chair.engine.load(chair.model, version=places.index(place) + 1)
            kind = "validation" if sets is held_out else "benchmarks"
            return run(f"{subject.name}, {place.name}", sets, settings, asked, chair, results / kind / place.name)

        chosen = select(places, lambda place: evaluate_checkpoint(place, held_out, protocol))
        measured = []
        if select_best:
            names = choose_benchmarks(subject, asked.benchmarks, asked.preset)
            fitting = protocol_for(replace(subject, recipe=None), names, asked)
            winner = next(place for place in places if place.name == chosen.best)
            measured = [evaluate_checkpoint(winner, load(names, asked), fitting)]
    rows = [row_of(evaluation, step) for step, evaluation in chosen.evaluations.items()]
    shown = show_rows(rows, as_json)
    draw_checkpoints(rows, HELD_OUT, results / "checkpoints.svg")
    click.echo(str(chosen), err=as_json)
    if out is None:
        click.echo(f"report   {write_report([directory], directory / 'report.html')}", err=as_json)
    benchmarks = show_evaluations(measured, as_json, None) if measured else None
    return {"checkpoints": shown, "best": chosen.best, "honest_best": chosen.honest_best, "benchmarks": benchmarks}


def grade_file(path: Path, asked: Asked, out: Path | None) -> list[Any]:
    """Grade completions made elsewhere: one evaluation, and below `out` one directory, a model that the file names."""
    from open_rs.evaluate.export import export
    from open_rs.evaluate.outputs import grade_outputs, read_outputs
    from open_rs.grading import Grader

    known = load(asked.benchmarks, asked).problems if asked.benchmarks else {}
    found = []
    with Grader() as grader:
        for name, outputs in read_outputs(path, known).items():
            if outputs.completions:
                place = None if out is None else out / name.replace("/", "-")
                found.append(grade_outputs(name, outputs, grader, place, asked.raw_gold))
                if place is not None:
                    export(found[-1], place)
    return found


def grade_again(directory: Path) -> Any:
    from open_rs.evaluate.run import regrade

    return regrade(directory)


def read_lighteval(directory: Path) -> Any:
    from open_rs.evaluate.lighteval import read_lighteval

    return read_lighteval(directory)


def show_rows(rows: Any, as_json: bool) -> Any:
    """Print a results table, or return its cells."""
    from open_rs.cli.results import print_table, row_as_json
    from open_rs.evaluate.tables import results_table

    if not as_json:
        print_table(results_table(rows))
    return [row_as_json(row) for row in rows]


def show_evaluations(evaluations: Sequence[Any], as_json: bool, directory: Path | None) -> Any:
    """Print scores, their parts, claims beside published rows and warnings; write the files into a directory."""
    from open_rs.cli.results import print_table
    from open_rs.evaluate import published, tables
    from open_rs.evaluate.export import export
    from open_rs.evaluate.rows import row_of

    if directory is not None:
        export(evaluations[0], directory)
    if as_json:
        summaries = [evaluation.summary() for evaluation in evaluations]
        return summaries if len(summaries) > 1 else summaries[0]
    print_table(tables.results_table([row_of(evaluation) for evaluation in evaluations]))
    for evaluation in evaluations:
        click.echo(f"\n{evaluation.model}")
        print_table(tables.details_table(evaluation))
        print_table(tables.signs_table(evaluation))
        for line in [
            *map(str, published.claims(evaluation)),
            *(f"note: {text}" for text in tables.remarks(evaluation)),
        ]:
            click.echo(line)
    if directory is not None:
        click.echo(f"\nresults  {directory}")
    return None


class Progress:
    """One line on standard error: samples done, accuracy unknown until graded, tokens a second."""

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("sampling"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[tokens]:,} tokens"),
            TimeRemainingColumn(),
        )  # fmt: skip
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self.bar.start()
        self.task, self.tokens = self.bar.add_task("sampling", total=None, tokens=0), 0
        return self._show

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def _show(self, done: int, total: int, completion: Any) -> None:
        self.tokens += 0 if completion is None else completion.tokens or 0
        self.bar.update(self.task, completed=done, total=total, tokens=self.tokens)
