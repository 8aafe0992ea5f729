"""What a curation will cost in samples and tokens, said before it starts, from the recipe alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from open_rs.config.curation import (
    CurationRecipe,
    JudgeStage,
    PassRateStage,
    QuotaStage,
    RehearsalConfig,
    SampleStage,
    SourceConfig,
    Stage,
    load_curation,
    rehearsed,
)
from open_rs.data.pass_rate import Wanted, samples_to_ask
from open_rs.data.sources import SOURCES


@dataclass(frozen=True, slots=True)
class Cost:
    """One step of a plan. `rows` go in and `kept` come out, None where nothing says how many.

    `samples` is what is expected where pass rates are spread evenly over [0, 1]; most sets have more problems that are
    solved always or never, and need fewer. `tokens` counts completions, at the length that the recipe expects.
    """

    name: str
    rows: int | None
    kept: int | None
    samples: float | None = None
    tokens: float | None = None
    model: str | None = None
    sampler: str = ""  # equal for two stages that can share samples

    def hours(self, tokens_per_second: float) -> float | None:
        """Time on one engine that samples so fast in all."""
        return None if self.tokens is None else self.tokens / tokens_per_second / 3600


def plan(recipe: CurationRecipe, prefix: str = "", chain: tuple[str, ...] = ()) -> Iterator[Cost]:
    """Every step with what it will cost.

    A stage keeps the share that its `published_rows` show, or everything: an upper bound.
    """
    return _without_repeats(_plan(recipe, prefix, chain))


def _without_repeats(costs: Iterator[Cost]) -> Iterator[Cost]:
    """Samples of one model under one setting are drawn once; a second stage that wants them finds them in the cache."""
    largest: dict[str, int] = {}
    for cost in costs:
        known = largest.get(cost.sampler, 0)
        if not cost.sampler or cost.rows is None:
            yield cost
            continue
        share = max(cost.rows - known, 0) / max(cost.rows, 1)
        largest[cost.sampler] = max(known, cost.rows)
        yield replace(cost, samples=(cost.samples or 0) * share, tokens=(cost.tokens or 0) * share)


def _plan(recipe: CurationRecipe, prefix: str, chain: tuple[str, ...]) -> Iterator[Cost]:
    recipe = rehearsed(recipe, recipe.rehearsal)
    total: int | None = 0
    for source in recipe.sources:
        costs = list(_plan_source(source, prefix, (*chain, recipe.name), recipe.rehearsal))
        yield from costs
        last = costs[-1].kept
        total = None if total is None or last is None else total + last
    only = recipe.sources[0] if len(recipe.sources) == 1 and not recipe.sources[0].stages else None
    yield from _plan_stages(recipe.stages, total, only.published_rows if only else None, prefix)


def expected_samples(wanted: Wanted) -> float:
    """Mean number of samples of one problem whose rate is drawn evenly from [0, 1], by going through all outcomes."""
    likely = {(0, 0): 1.0}  # (correct, samples) -> probability of being there and going on
    mean = 0.0
    while likely:
        (correct, samples), chance = next(iter(sorted(likely.items(), key=lambda item: item[0][1])))
        del likely[correct, samples]
        more = samples_to_ask(correct, samples, wanted)
        if more == 0:
            mean += chance * samples
            continue
        for state, share in _after(correct, samples, more).items():
            likely[state] = likely.get(state, 0.0) + chance * share
    return mean


def _after(correct: int, samples: int, more: int) -> dict[tuple[int, int], float]:
    """Where `more` samples lead under an even prior: the chance of a right one is (correct + 1) / (samples + 2)."""
    states = {(correct, samples): 1.0}
    for _ in range(more):
        following: dict[tuple[int, int], float] = {}
        for (right, drawn), chance in states.items():
            share = (right + 1) / (drawn + 2)
            following[right + 1, drawn + 1] = following.get((right + 1, drawn + 1), 0.0) + chance * share
            following[right, drawn + 1] = following.get((right, drawn + 1), 0.0) + chance * (1 - share)
        states = following
    return states


def _plan_source(
    source: SourceConfig, prefix: str, chain: tuple[str, ...], rehearsal: RehearsalConfig
) -> Iterator[Cost]:
    if source.recipe is not None and source.recipe not in chain:
        inner = load_curation(source.recipe).model_copy(update={"rehearsal": rehearsal})
        costs = list(_plan(inner, f"{prefix}{inner.name}/", chain))
        yield from costs
        name, rows, published = inner.name, costs[-1].kept, None
    else:
        known = next((one for one in SOURCES.values() if source.name in (one.name, one.hub_id)), None)
        name, published = source.label or source.name or str(source.path), source.published_rows
        rows = published or (known.num_rows if known else None)
        rows = source.limit if rows is None else min(rows, source.limit or rows)
        yield Cost(f"{prefix}{name}/load", rows, rows)
    yield from _plan_stages(source.stages, rows, published, f"{prefix}{name}/")


def _plan_stages(stages: tuple[Stage, ...], rows: int | None, published: int | None, prefix: str) -> Iterator[Cost]:
    for stage in stages:
        kept = _kept(stage, rows, published)
        kind = str(getattr(stage, "stage"))  # noqa: B009  (each concrete stage names itself; the base class doesn't)
        yield _cost(stage, f"{prefix}{kind}", rows, kept)
        rows, published = kept, stage.published_rows or published


def _kept(stage: Stage, rows: int | None, published: int | None) -> int | None:
    if rows is None:
        return stage.rows if isinstance(stage, SampleStage) else None
    if isinstance(stage, SampleStage):
        return min(rows, stage.rows)
    if isinstance(stage, QuotaStage) and stage.default == 0:
        return min(rows, sum(stage.rows.values()))
    if stage.published_rows is not None and published:
        return round(rows * stage.published_rows / published)
    return rows


def _cost(stage: Stage, name: str, rows: int | None, kept: int | None) -> Cost:
    if rows is None or not isinstance(stage, PassRateStage | JudgeStage):
        return Cost(name, rows, kept)
    each = 1.0
    if isinstance(stage, PassRateStage):
        each = expected_samples(Wanted(stage.half_width, stage.confidence, stage.min_samples, stage.max_samples))
    length = stage.expected_tokens or stage.rollout.max_completion_length
    settings = stage.model_dump(mode="json", include={"model", "rollout", "prompt", "seed"})
    sampler = json.dumps(settings, sort_keys=True)
    return Cost(name, rows, kept, each * rows, each * rows * length, stage.model.name_or_path, sampler)
