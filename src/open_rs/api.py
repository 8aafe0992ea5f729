"""The verbs for notebooks: `from open_rs import curate, train, evaluate, grade`. Each does what its command does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_rs.config.schema import EndpointConfig, Recipe
from open_rs.run_dir import next_free
from open_rs.types import Verdict

if TYPE_CHECKING:
    from open_rs.evaluate.result import Evaluation

Observe = Callable[[str, Mapping[str, Any]], None]


def train(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    observe: Observe | None = None,
) -> dict[str, Any]:
    """Run a recipe, named or loaded; returns its summary. `out` defaults to the next free `runs/<recipe>`.

    `train("demo", ["train.max_steps=5"])["difference"]["ci95"]` is the paired interval of the gain.
    """
    from open_rs.config.load import load_recipe
    from open_rs.report.live import Live
    from open_rs.train.run import train as run

    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    directory = next_free(Path("runs") / loaded.name) if out is None else Path(out)
    if observe is not None:
        return run(loaded, directory, observe)
    with Live() as live:
        return run(loaded, directory, live)


def evaluate(
    model: str | Path,
    benchmarks: Sequence[str] = (),
    *,
    samples: int | None = None,
    protocol: str | None = None,
    max_tokens: int | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    engine: str = "local",
    endpoint: EndpointConfig | None = None,
    max_concurrent: int = 64,
    out: str | Path | None = None,
) -> Evaluation:
    """Measure a model, a run, or `open-rs-tiny`; every option means what it means on the command line."""
    from open_rs.evaluate.benchmarks import load_sets
    from open_rs.evaluate.run import evaluate as run
    from open_rs.evaluate.subject import choose_benchmarks, choose_protocol, find_subject, seat

    subject = find_subject(str(model))
    names = choose_benchmarks(subject, benchmarks, None)
    sets = load_sets(names, None if data is None else Path(data), limit)
    asked = choose_protocol(subject, protocol, names)
    asked = asked if max_tokens is None else replace(asked, max_tokens=max_tokens)
    with seat(subject, engine, endpoint or EndpointConfig(), max_concurrent) as chair:
        return run(
            chair.engine,
            chair.tokenizer,
            sets.problems,
            asked,
            model=subject.name,
            samples=samples,
            out=None if out is None else Path(out),
            dropped=sets.dropped,
            context_length=chair.context_length,
            about=chair.about,
        )


def curate(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    data: Sequence[str | Path] = (),
    out: str | Path | None = None,
    cache: str | Path | None = None,
) -> Path:
    """Run a curation recipe and write its set; returns the directory, which `train` and `datasets` read.

    `data` names folders with local copies of sources and benchmarks, looked in before the Hub.
    """
    from open_rs.config.curation import load_curation
    from open_rs.data.curate import curate as run
    from open_rs.data.curate import default_cache
    from open_rs.data.publish import write_set

    loaded = load_curation(recipe, overrides)
    loaded = loaded.model_copy(update={"directories": (*loaded.directories, *map(str, data))})
    directory = Path("sets") / loaded.name if out is None else Path(out)
    return write_set(run(loaded, default_cache() if cache is None else Path(cache)), directory).directory


def grade(rows: Iterable[tuple[str, str]], *, num_workers: int = 2, timeout_seconds: float = 5.0) -> list[Verdict]:
    """Grade (gold, completion) pairs; verdicts in their order.

    `grade([("1/2", "0.5 in a box")])` is one verdict; the completion holds its answer in `\\boxed{}`.
    """
    from open_rs.grading import Grader

    with Grader(num_workers, timeout_seconds) as grader:
        pending = [grader.submit(gold, completion) for gold, completion in rows]
        return [one.result() for one in pending]
