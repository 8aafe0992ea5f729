"""Curation: sources and stages become a training set, each stage cached by the content of its inputs and parameters.

Start at `curate`. A stage reads the file that the stage before it wrote and writes two: what it kept, and what it
dropped with the reason. A curation that was cut off goes on at the stage that was not finished; sampled completions are
kept one by one (see `pass_rate`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from open_rs.config.curation import (
    CurationRecipe,
    JudgeStage,
    PassRateStage,
    RehearsalConfig,
    SourceConfig,
    Stage,
    load_curation,
    rehearsed,
)
from open_rs.data import intake
from open_rs.data.model_stages import BuildSampler, build_sampler, decide, model_identity
from open_rs.data.rows import Dropped
from open_rs.data.stages import Decision, Drop, Notes, Rows, run_stage
from open_rs.grading import Grader
from open_rs.run_dir import disk_errors
from open_rs.types import Problem, UserError

Watch = Callable[[str, int, int], None]  # (step, rows done, rows in all; 0 where nobody knows)

EVERY_ROWS = 500


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the funnel. `name` is `source/stage` inside a source, and the stage alone behind their union."""

    name: str
    rows_in: int
    kept: int
    reasons: Mapping[str, int]
    notes: Mapping[str, Any]
    seconds: float
    published_rows: int | None
    cached: bool
    directory: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows came from, for the card and the manifest."""

    name: str
    place: str
    digest: str
    licence: str
    rows: int


@dataclass(frozen=True)
class RowFile:
    """The problems that a stage kept, on disk; reading it twice gives the same rows."""

    path: Path
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[Problem]:
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                yield Problem(**json.loads(line))


@dataclass(frozen=True)
class Union:
    """Several row files, one behind the other; an id that another file gave already gets a number behind it."""

    parts: Sequence[Rows]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[Problem]:
        seen: Counter[str] = Counter()
        for part in self.parts:
            for problem in part:
                seen[problem.id] += 1
                times = seen[problem.id]
                yield problem if times == 1 else replace(problem, id=f"{problem.id}~{times}")


@dataclass(frozen=True)
class Curated:
    """What a curation made: the rows, the funnel that led there, and where everything came from."""

    recipe: CurationRecipe
    rows: Rows
    key: str
    steps: tuple[Step, ...]
    origins: tuple[Origin, ...]
    benchmark_items: Sequence[Problem]


@dataclass
class Workshop:
    """The tools that stages borrow, made when first asked for, and put away by `close`."""

    cache: Path
    directories: tuple[Path, ...]
    benchmarks: tuple[str, ...] | str
    build_sampler: BuildSampler
    watch: Watch
    say: Callable[[str], None]
    benchmark_digest: str = field(default="", init=False)

    _grader: Grader | None = field(default=None, init=False)
    _items: list[Problem] | None = field(default=None, init=False)

    def grader(self) -> Grader:
        if self._grader is None:
            self._grader = Grader()
        return self._grader

    def benchmark_items(self) -> list[Problem]:
        if self._items is None:
            self._items = intake.open_benchmarks(self.benchmarks, self.directories)
        return self._items

    def decide_with_model(self, stage: PassRateStage | JudgeStage, rows: Rows, notes: Notes) -> Iterator[Decision]:
        return decide(stage, rows, notes, self.build_sampler, self.grader(), self.cache, self.say)

    def close(self) -> None:
        if self._grader is not None:
            self._grader.close()


def curate(
    recipe: CurationRecipe,
    cache_directory: Path,
    *,
    watch: Watch = lambda step, done, total: None,
    say: Callable[[str], None] = lambda line: None,
    sampler: BuildSampler = build_sampler,
) -> Curated:
    """Run a recipe. Nothing is written but the cache; `open_rs.data.publish.write_set` writes the result.

    `watch` is told how far each step is, `say` what a person should know. Raises UserError for a source, column, rule
    or model that is not there, and for an endpoint that stopped answering; what was finished is kept either way.
    """
    directories = tuple(Path(place) for place in recipe.directories)
    workshop = Workshop(cache_directory, directories, recipe.benchmarks, sampler, watch, say)
    try:
        items = workshop.benchmark_items()
        workshop.benchmark_digest = _digest([[item.question, item.answer] for item in items])
        return _Run(workshop, (recipe.name,), recipe.rehearsal).recipe(recipe, prefix="")
    finally:
        workshop.close()


@dataclass(frozen=True)
class _Run:
    """One recipe being run; `chain` names it and the recipes that asked for it."""

    workshop: Workshop
    chain: tuple[str, ...]
    rehearsal: RehearsalConfig

    def recipe(self, recipe: CurationRecipe, prefix: str) -> Curated:
        recipe = rehearsed(recipe, self.rehearsal)
        steps: list[Step] = []
        origins: list[Origin] = []
        parts: list[tuple[Rows, str]] = []
        for source in recipe.sources:
            rows, key = self._source(source, prefix, steps, origins)
            parts.append((rows, key))
        rows, key = (
            parts[0] if len(parts) == 1 else (Union([rows for rows, _ in parts]), _digest([key for _, key in parts]))
        )
        for stage in recipe.stages:
            rows, key = self._stage(stage, rows, key, prefix, steps)
        return Curated(recipe, rows, key, tuple(steps), tuple(origins), self.workshop.benchmark_items())

    def _source(self, source: SourceConfig, prefix: str, steps: list[Step], origins: list[Origin]) -> tuple[Rows, str]:
        if source.recipe is not None:
            inner = self._inner(source.recipe, prefix)
            steps.extend(inner.steps)
            origins.extend(inner.origins)
            rows, key, name = inner.rows, inner.key, source.label or inner.recipe.name
        else:
            rows, key, name = self._load(source, prefix, steps, origins)
        for stage in source.stages:
            rows, key = self._stage(stage, rows, key, f"{prefix}{name}/", steps)
        return rows, key

    def _inner(self, name: str, prefix: str) -> Curated:
        recipe = load_curation(name)
        if recipe.name in self.chain:
            raise UserError(f"sources: {' -> '.join((*self.chain, recipe.name))} is a circle of recipes; remove one")
        return _Run(self.workshop, (*self.chain, recipe.name), self.rehearsal).recipe(recipe, f"{prefix}{recipe.name}/")

    def _load(
        self, source: SourceConfig, prefix: str, steps: list[Step], origins: list[Origin]
    ) -> tuple[Rows, str, str]:
        opened = intake.open_source(source, self.workshop.directories)
        self._tell_change(opened)
        settings = source.model_dump(mode="json", exclude={"published_rows", "stages"})
        key = _digest(["load", settings, opened.digest, code_digest()])

        def decisions(notes: Notes) -> Iterator[Decision]:
            for row in opened.rows:
                yield row if isinstance(row, Problem) else _unusable(row, opened.name)

        name = f"{prefix}{opened.name}/load"
        rows = self._cached(name, key, None, decisions, source.published_rows, steps)
        origins.append(Origin(opened.name, opened.place, opened.digest, opened.licence, steps[-1].rows_in))
        return rows, key, opened.name

    def _stage(self, stage: Stage, rows: Rows, key: str, prefix: str, steps: list[Step]) -> tuple[Rows, str]:
        material = [stage.model_dump(mode="json", exclude={"published_rows", "expected_tokens"}), key, code_digest()]
        kind = str(getattr(stage, "stage"))  # noqa: B009  (each concrete stage names itself; the base class doesn't)
        if kind == "decontaminate":
            material.append(self.workshop.benchmark_digest)
        if isinstance(stage, PassRateStage | JudgeStage):
            material.append(model_identity(stage))
        key = _digest(material)

        def decisions(notes: Notes) -> Iterator[Decision]:
            return run_stage(stage, rows, self.workshop, notes)

        return self._cached(f"{prefix}{kind}", key, len(rows), decisions, stage.published_rows, steps), key

    def _cached(
        self,
        name: str,
        key: str,
        num_rows: int | None,
        decisions: Callable[[Notes], Iterator[Decision]],
        published_rows: int | None,
        steps: list[Step],
    ) -> RowFile:
        directory = self.workshop.cache / "stages" / f"{name.replace('/', '.')[-80:]}-{key[:16]}"
        cached = (directory / "stage.json").is_file()
        if not cached:
            started = time.perf_counter()
            notes: Notes = {}
            with disk_errors(directory), _no_draft_left(directory):
                counted = _write_stage(directory, self._watched(name, num_rows, decisions(notes)))
                counted |= {"notes": notes, "seconds": time.perf_counter() - started}
                _finish_stage(directory, counted)
        found = json.loads((directory / "stage.json").read_text(encoding="utf-8"))
        step = Step(
            name, found["rows_in"], found["kept"], found["reasons"], found["notes"], found["seconds"],
            published_rows, cached, str(directory),
        )  # fmt: skip
        steps.append(step)
        self.workshop.watch(name, step.rows_in, step.rows_in)
        return RowFile(directory / "kept.jsonl", step.kept)

    def _watched(self, name: str, total: int | None, decisions: Iterable[Decision]) -> Iterator[Decision]:
        self.workshop.watch(name, 0, total or 0)
        for done, decision in enumerate(decisions, start=1):
            if done % EVERY_ROWS == 0:
                self.workshop.watch(name, done, total or 0)
            yield decision

    def _tell_change(self, opened: intake.Intake) -> None:
        record = self.workshop.cache / "sources" / f"{_digest([opened.place])[:16]}.json"
        with disk_errors(record):
            known = json.loads(record.read_text()) if record.is_file() else None
            if known is not None and known["digest"] != opened.digest:
                self.workshop.say(f"{opened.place}: changed since it was last read; what depends on it runs again")
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({"place": opened.place, "digest": opened.digest}))


def default_cache() -> Path:
    """`$OPEN_RS_CACHE/curate`, or `~/.cache/open-rs/curate`."""
    return Path(os.environ.get("OPEN_RS_CACHE") or Path.home() / ".cache" / "open-rs") / "curate"


def _unusable(row: Dropped, source: str) -> Drop:
    return Drop(Problem(row.id, row.question, "", source), row.reason, {"row": row.row})


def _write_stage(directory: Path, decisions: Iterable[Decision]) -> dict[str, Any]:
    """Write both files into a draft beside `directory`, and return the counts."""
    draft = _draft(directory)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    kept, reasons = 0, Counter[str]()
    with (draft / "kept.jsonl").open("w", encoding="utf-8") as keep, (draft / "dropped.jsonl").open("w") as drop:
        for decision in decisions:
            if isinstance(decision, Problem):
                kept += 1
                keep.write(_line(asdict_shallow(decision)))
            else:
                reasons[decision.reason] += 1
                row = {"reason": decision.reason, "evidence": decision.evidence, **asdict_shallow(decision.problem)}
                drop.write(_line(row))
    return {"rows_in": kept + reasons.total(), "kept": kept, "reasons": dict(reasons.most_common())}


def _finish_stage(directory: Path, counted: Mapping[str, Any]) -> None:
    draft = _draft(directory)
    (draft / "stage.json").write_text(json.dumps(counted, indent=2, default=str), encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    draft.rename(directory)


@contextmanager
def _no_draft_left(directory: Path) -> Iterator[None]:
    """Take away half a stage when it is interrupted."""
    try:
        yield
    finally:
        shutil.rmtree(_draft(directory), ignore_errors=True)


def _draft(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.{os.getpid()}")


def asdict_shallow(problem: Problem) -> dict[str, Any]:
    """The fields of a problem, as `Problem(**fields)` takes them back."""
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "source": problem.source,
        "meta": dict(problem.meta),
    }


def _line(row: Mapping[str, Any]) -> str:
    """JSON on one line; lone surrogates are escaped, as UTF-8 can't hold them."""
    return json.dumps(row, default=str) + "\n"


def _digest(material: Any) -> str:
    return hashlib.sha256(json.dumps(material, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Hash of the code that decides what is kept, so that a cache never outlives a change of a rule."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in ("data", "grading"):
        for file in sorted((package / room).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def as_rows(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """The funnel as plain rows, for JSON; where the cache lies is nobody else's business."""
    return [{name: value for name, value in asdict(step).items() if name != "directory"} for step in steps]
