"""The stages of a curation: each reads problems and yields every one of them again, kept or dropped with a reason."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from open_rs.config import curation as config
from open_rs.data.duplicates import Family, find_families
from open_rs.data.filters import build_rule, first_reason
from open_rs.data.overlap import Overlap, OverlapLimits, find_overlaps
from open_rs.data.rows import last_box
from open_rs.grading import Grader
from open_rs.grading.audit import audit
from open_rs.types import Problem

NUM_GRADER_WORKERS = 2


@dataclass(frozen=True, slots=True)
class Drop:
    """A problem that a stage leaves out. `evidence` holds what a person needs to judge that for themselves."""

    problem: Problem
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


Decision = Problem | Drop
Notes = dict[str, Any]


class Rows(Protocol):
    """Problems that can be read again and again, in the same order."""

    def __iter__(self) -> Iterator[Problem]: ...

    def __len__(self) -> int: ...


class Tools(Protocol):
    """What stages borrow from the curation that runs them."""

    def grader(self) -> Grader:
        """The one grader, started when first asked for."""
        ...

    def benchmark_items(self) -> list[Problem]:
        """Every problem of the held-out sets that the recipe names."""
        ...

    def decide_with_model(
        self, stage: config.PassRateStage | config.JudgeStage, rows: Rows, notes: Notes
    ) -> Iterator[Decision]:
        """Run a stage that samples from a language model."""
        ...


def run_stage(stage: config.Stage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    """Every problem of `rows` in order, as it goes on or as a `Drop`; `notes` gathers the stage's own counts."""
    return STAGE_FUNCTIONS[type(stage)](stage, rows, tools, notes)


def same_answer(grader: Grader) -> Callable[[str, str], bool]:
    """Whether two golds state one value: equal strings, or equal for the grader, either way round."""

    def same(one: str, other: str) -> bool:
        if one.strip() == other.strip():
            return True
        return any(grader.grade(a, f"\\boxed{{{b}}}").correct is True for a, b in ((one, other), (other, one)))

    return same


def _extract(stage: config.ExtractStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    for problem in rows:
        solution = str(problem.meta.get(stage.field) or problem.answer)
        answer = last_box(solution).strip()
        if answer:
            yield replace(problem, answer=answer, meta={**problem.meta, stage.field: solution})
        else:
            yield Drop(problem, f"no \\boxed{{}} in the {stage.field}")


def _audit(stage: config.AuditStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    with ThreadPoolExecutor(NUM_GRADER_WORKERS) as threads:
        waiting: deque[tuple[Problem, Future[str | None]]] = deque()
        for problem in rows:
            waiting.append((problem, threads.submit(audit, problem.answer, tools.grader())))
            if len(waiting) > 256:
                yield _audited(*waiting.popleft())
        while waiting:
            yield _audited(*waiting.popleft())


def _audited(problem: Problem, found: Future[str | None]) -> Decision:
    reason = found.result()
    if reason is None:
        return problem
    kind, _, detail = reason.partition(":")
    return Drop(problem, kind.replace("_", " "), {"answer": problem.answer, "detail": detail.strip()})


def _rules(stage: config.RulesStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    rules = [build_rule(rule.name, rule.params) for rule in stage.rules]
    for problem in rows:
        reason = first_reason(problem, rules)
        yield problem if reason is None else Drop(problem, reason)


def _deduplicate(stage: config.DeduplicateStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    families = find_families(rows, same_answer(tools.grader()), stage.near, stage.threshold)
    notes |= _count_families(families)
    member = {row: family for family in families for row in family.rows}
    first_ids: dict[int, str] = {}
    for row, problem in enumerate(rows):
        family = member.get(row)
        if family is None:
            yield problem
            continue
        first_ids.setdefault(family.rows[0], problem.id)
        yield _settle(stage, problem, row, family, first_ids[family.rows[0]])


def _settle(stage: config.DeduplicateStage, problem: Problem, row: int, family: Family, first_id: str) -> Decision:
    evidence = {"family": first_id, "answers": sorted(set(family.answers))}
    if family.conflicting and (stage.conflicts == "drop" or family.majority is None):
        return Drop(problem, "repeats disagree about the answer", evidence)
    if row == family.keeper:
        return problem
    kind = {"repeat": "repeat", "respelled": "repeat in another spelling", "near": "near duplicate"}
    place = family.rows.index(row)
    return Drop(problem, kind[family.kinds[place]], evidence)


def _count_families(families: Iterable[Family]) -> Notes:
    """Counts that tell what a pool is like; `groups_with_differing_answers` looks at exact repeats only."""
    families = list(families)
    kinds = Counter(kind for family in families for kind in family.kinds[1:])
    return {
        "repeats": kinds["repeat"],
        "respelled": kinds["respelled"],
        "near_duplicates": kinds["near"],
        "groups_with_differing_answers": sum(family.exact_groups_that_differ for family in families),
        "families": len(families),
        "families_that_conflict": sum(family.conflicting for family in families),
    }


def _decontaminate(stage: config.DecontaminateStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    limits = OverlapLimits(stage.copy_share, stage.reasked_share, stage.paraphrase_share)
    items = tools.benchmark_items()
    found = {overlap.row: overlap for overlap in find_overlaps(rows, items, same_answer(tools.grader()), limits)}
    notes["benchmark_items"] = len(items)
    notes["by_benchmark"] = dict(Counter(overlap.item.source for overlap in found.values()).most_common())
    for row, problem in enumerate(rows):
        overlap = found.get(row)
        yield problem if overlap is None else Drop(problem, f"repeats {overlap.item.source}", evidence_of(overlap))


def evidence_of(overlap: Overlap) -> dict[str, Any]:
    """Both texts side by side, and why they count as one."""
    return {
        "kind": overlap.kind,
        "coverage": round(overlap.coverage, 3),
        "same_answer": overlap.same_answer,
        "benchmark": overlap.item.source,
        "item": overlap.item.id,
        "item_question": overlap.item.question,
        "item_answer": overlap.item.answer,
        "question": overlap.problem.question,
        "answer": overlap.problem.answer,
    }


def _with_model(
    stage: config.PassRateStage | config.JudgeStage, rows: Rows, tools: Tools, notes: Notes
) -> Iterator[Decision]:
    return tools.decide_with_model(stage, rows, notes)


def _band(stage: config.BandStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    for problem in rows:
        value = column(problem, stage.field)
        if isinstance(value, str):
            value = float(value) if value.replace(".", "", 1).isdigit() else None
        if value is None:
            yield Drop(problem, f"no number in `{stage.field}`")
        elif stage.above is not None and value < stage.above:
            yield Drop(problem, f"{stage.field} below {stage.above:g}", {stage.field: value})
        elif stage.below is not None and value > stage.below:
            yield Drop(problem, f"{stage.field} above {stage.below:g}", {stage.field: value})
        else:
            yield problem


def _label(stage: config.LabelStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    for problem in rows:
        yield replace(problem, meta={**problem.meta, stage.field: stage.value})


def _quota(stage: config.QuotaStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    places: dict[str, list[int]] = {}
    for row, problem in enumerate(rows):
        places.setdefault(str(column(problem, stage.by)), []).append(row)
    chosen: set[int] = set()
    for value, members in places.items():
        limit = stage.rows.get(value, stage.default)
        chosen |= set(members) if limit is None else draw(members, limit, f"{stage.seed}\0{value}")
    notes["available"] = {value: len(members) for value, members in places.items()}
    notes["short_of"] = {value: wanted for value, wanted in stage.rows.items() if len(places.get(value, ())) < wanted}
    for row, problem in enumerate(rows):
        yield problem if row in chosen else Drop(problem, f"over the quota of {column(problem, stage.by)}")


def _sample(stage: config.SampleStage, rows: Rows, tools: Tools, notes: Notes) -> Iterator[Decision]:
    chosen = draw(range(len(rows)), stage.rows, str(stage.seed))
    if len(rows) < stage.rows:
        notes["short_of"] = stage.rows
    for row, problem in enumerate(rows):
        yield problem if row in chosen else Drop(problem, "not drawn")


def draw(members: Iterable[int], count: int, seed: str) -> set[int]:
    """`count` of the members, or all of them where there are fewer; the same for the same seed."""
    members = list(members)
    return set(random.Random(seed).sample(members, min(count, len(members))))


def column(problem: Problem, name: str) -> Any:
    """A column of the written set: `source`, `answer`, or whatever the source knows besides."""
    return getattr(problem, name) if name in ("id", "question", "answer", "source") else problem.meta.get(name)


STAGE_FUNCTIONS: dict[type[config.Stage], Callable[..., Iterator[Decision]]] = {
    config.ExtractStage: _extract,
    config.AuditStage: _audit,
    config.RulesStage: _rules,
    config.DeduplicateStage: _deduplicate,
    config.DecontaminateStage: _decontaminate,
    config.PassRateStage: _with_model,
    config.JudgeStage: _with_model,
    config.BandStage: _band,
    config.LabelStage: _label,
    config.QuotaStage: _quota,
    config.SampleStage: _sample,
}
