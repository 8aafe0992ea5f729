"""Running an evaluation: one queue over all benchmarks and samples, graded while it generates, on disk as it arrives.

A result depends on (problem, sample, seed) only, so a killed evaluation that is started again ends in the same result,
and 8 samples can be extended to 64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from open_rs.data.sources import SOURCES
from open_rs.evaluate.diagnostics import read_signs
from open_rs.evaluate.fingerprint import check_continues, departures, fingerprint, warn
from open_rs.evaluate.golds import Audited, audit
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.records import COMPLETIONS, Completion, Judgement, Key, Store
from open_rs.evaluate.result import RESULTS, BenchmarkResult, Evaluation, Sample
from open_rs.evaluate.window import Fitted, fit
from open_rs.grading import Grader
from open_rs.prompts import Prompt, opens_reasoning, render
from open_rs.rollout.engine import Engine, Request
from open_rs.types import Finish, Problem, UserError, Verdict

# Mean completion tokens of the paper's models, rounded from its run log: what is asked first is what ends last.
EXPECTED_TOKENS = {"aime24": 15_000, "aime25": 15_000, "amc23": 10_000, "amc22_23": 10_000, "olympiadbench": 9_000}
OTHERWISE_EXPECTED_TOKENS = 5_000
UNGRADED_AT_MOST = 512  # completions handed to the grader and not yet answered

Progress = Callable[[int, int, Completion | None], None]  # (done, of, the completion that arrived)


def evaluate(
    engine: Engine,
    tokenizer: Any,
    sets: Mapping[str, Sequence[Problem]],
    protocol: Protocol,
    *,
    model: str = "model",
    samples: int | None = None,
    grader: Grader | None = None,
    out: Path | None = None,
    raw_gold: bool = False,
    dropped: Mapping[str, Mapping[str, str]] | None = None,
    context_length: int | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Sample, grade and summarise `sets` (name -> problems) under `protocol`; the engine already holds the model.

    `samples` replaces the protocol's number. With `out`, every completion and verdict is appended there, and what is
    already there is not generated again. `dropped` (set -> problem -> reason) lists rows that loading left out; `about`
    (dtype, device) goes into the fingerprint. The protocol's limit is lowered where it exceeds `context_length`, with a
    warning. Problem ids must be unique over all sets.
    Raises UserError for no samples, no problems, repeated ids, or an `out` of other settings.
    """
    _check(sets, samples)
    protocol = protocol if samples is None else replace(protocol, samples=samples, samples_of={})
    prompts = {
        problem.id: render(problem, tokenizer, protocol.system, protocol.user_template) for problem in _all(sets)
    }
    fitted = fit(protocol, prompts, context_length)
    mark = fingerprint(model, fitted.protocol, sets, prompts, tokenizer, raw_gold, about or {})
    if out is not None:
        check_continues(out, mark)
    audited = audit_sets(sets, raw_gold, dropped or {})
    with Store(out) as store, nullcontext(grader) if grader is not None else Grader() as judge:
        desk = Desk(store, judge)
        desk.grade_missing(_wanted(sets, protocol))
        queue = Queue(sets, prompts, fitted, _golds(audited))
        queue.answer_too_long(desk)
        queue.generate_missing(engine, desk, progress or _quiet)
        store.settle({problem_id: place for place, problem_id in enumerate(prompts)})
        results = {
            name: result_of(name, problems, audited[name], range(protocol.num_samples(name)), store)
            for name, problems in sets.items()
        }
    warnings = (*departures(protocol), *fitted.warnings, *warn(fitted.protocol, results, mark))
    evaluation = Evaluation(model, results, mark, warnings)
    if out is not None:
        evaluation.save(out)
    return evaluation


class Desk:
    """Where completions lie between the engine and the store: graded in other processes while generation goes on."""

    def __init__(self, store: Store, grader: Grader) -> None:
        self.store, self._grader = store, grader
        self._waiting: dict[Key, Any] = {}

    def take(self, completion: Completion) -> None:
        """Write a completion down and hand it to the grader; collect what the grader has finished."""
        self.store.add_completion(completion)
        self._submit(completion)
        if len(self._waiting) >= UNGRADED_AT_MOST:
            self.collect(UNGRADED_AT_MOST // 2)

    def grade_missing(self, wanted: Iterable[Key]) -> None:
        """Hand over what is on disk without a verdict, as after a kill or for grading again."""
        for key in wanted:
            if key in self.store.completions and key not in self.store.judgements:
                self._submit(self.store.completions[key])
                if len(self._waiting) >= UNGRADED_AT_MOST:
                    self.collect(UNGRADED_AT_MOST // 2)

    def collect(self, leave: int = 0) -> None:
        """Write down verdicts, oldest first, until `leave` are still out."""
        while len(self._waiting) > leave:
            key = next(iter(self._waiting))
            verdict: Verdict = self._waiting.pop(key).result()
            completion = self.store.completions[key]
            signs = read_signs(completion.text, completion.reasoning_open)
            self.store.add_judgement(
                Judgement(
                    *key,
                    verdict.correct,
                    verdict.extracted,
                    verdict.reason,
                    signs.looping,
                    signs.foreign,
                    signs.answer_only_in_reasoning,
                    verdict.extracted is not None and not signs.boxed,
                )
            )

    def _submit(self, completion: Completion) -> None:
        self._waiting[completion.key] = self._grader.submit(
            completion.gold,
            completion.text,
            reasoning_open=completion.reasoning_open,
            fallback=True,
            relative_tolerance=stated_tolerance(completion.benchmark),
        )


def stated_tolerance(benchmark: str) -> float | None:
    """How far a number may lie from the gold where the benchmark itself says so."""
    return SOURCES[benchmark].relative_tolerance if benchmark in SOURCES else None


@dataclass(frozen=True)
class Queue:
    """Everything that is to be asked: one queue over all sets and samples."""

    sets: Mapping[str, Sequence[Problem]]
    prompts: Mapping[str, Prompt]
    fitted: Fitted
    golds: Mapping[str, str]

    @cached_property
    def home(self) -> Mapping[str, tuple[str, Problem]]:
        """Problem id -> (set, problem)."""
        return {problem.id: (name, problem) for name, problems in self.sets.items() for problem in problems}

    def generate_missing(self, engine: Engine, desk: Desk, progress: Progress) -> None:
        """Ask the engine for every sample that the store lacks, and wait for the last verdict."""
        requests = self.plan(desk.store)
        total = sum(len(request.samples) for request in requests)
        progress(0, total, None)
        if requests:
            with engine.awake():
                for done, rollout in enumerate(engine.generate(requests, self.fitted.protocol.sampling()), start=1):
                    completion = self._completion(
                        rollout.problem_id, rollout.sample, rollout.text, rollout.finish, len(rollout.tokens)
                    )
                    desk.take(completion)
                    progress(done, total, completion)
        desk.collect()

    def answer_too_long(self, desk: Desk) -> None:
        """Put down an empty, truncated answer for each prompt that the model can't read: it is wrong, and counted."""
        for problem_id in self.fitted.too_long:
            for sample in range(self.fitted.protocol.num_samples(self.home[problem_id][0])):
                if (problem_id, sample) not in desk.store.completions:
                    desk.take(self._completion(problem_id, sample, "", "length", 0))

    def plan(self, store: Store) -> list[Request]:
        """One request a problem with its missing samples, longest expected completion first."""
        seen: dict[str, list[int]] = {}
        for completion in store.completions.values():
            seen.setdefault(completion.problem_id, []).append(completion.tokens or 0)
        ranked: list[tuple[float, int, Request]] = []
        for problem_id, (name, _) in self.home.items():
            numbers = range(self.fitted.protocol.num_samples(name))
            missing = tuple(number for number in numbers if (problem_id, number) not in store.completions)
            before, prompt = seen.get(problem_id), self.prompts[problem_id]
            guess = sum(before) / len(before) if before else EXPECTED_TOKENS.get(name, OTHERWISE_EXPECTED_TOKENS)
            if missing:
                ranked.append((guess, len(prompt.tokens), Request(prompt, missing)))
        return [request for *_, request in sorted(ranked, key=lambda entry: (-entry[0], -entry[1]))]

    def _completion(self, problem_id: str, sample: int, text: str, finish: Finish, tokens: int) -> Completion:
        benchmark, problem = self.home[problem_id]
        return Completion(
            benchmark=benchmark,
            problem_id=problem_id,
            sample=sample,
            question=problem.question,
            gold=self.golds[problem_id],
            text=text,
            finish=finish,
            tokens=tokens,
            reasoning_open=opens_reasoning(self.prompts[problem_id].text),
        )


def result_of(
    name: str, problems: Sequence[Problem], audited: Audited, numbers: Iterable[int], store: Store
) -> BenchmarkResult:
    """One benchmark's result. Problems that are at fault, or that nobody can solve, are left out with the reason."""
    left_out = dict(audited.unsolvable)
    rows: dict[str, tuple[Sample, ...]] = {}
    for problem in problems:
        judged = [
            store.judgements[problem.id, number] for number in numbers if (problem.id, number) in store.judgements
        ]
        scored = tuple(_sample(j, store.completions[j.key]) for j in judged if j.correct is not None)
        if scored:
            rows[problem.id] = scored
        else:
            left_out.setdefault(problem.id, judged[0].reason if judged else "no completion")
    kept = {key: row for key, row in rows.items() if key not in audited.unsolvable}
    if not kept:
        raise UserError(f"{name}: no problem could be scored ({next(iter(left_out.values()))}); check its gold column")
    with_unsolvable = None
    if len(kept) < len(rows):
        with_unsolvable = sum(sum(s.correct for s in row) / len(row) for row in rows.values()) / len(rows)
    return BenchmarkResult(name, tuple(kept), tuple(kept.values()), left_out, dict(audited.corrected), with_unsolvable)


def _sample(judgement: Judgement, completion: Completion) -> Sample:
    return Sample(
        correct=bool(judgement.correct),
        extracted=judgement.extracted,
        tokens=completion.tokens,
        truncated=None if completion.finish is None else completion.finish == "length",
        looping=judgement.looping,
        foreign=judgement.foreign,
        answer_only_in_reasoning=judgement.answer_only_in_reasoning,
        outside_box=judgement.outside_box,
        reason=judgement.reason,
    )


def regrade(directory: Path, grader: Grader | None = None) -> Evaluation:
    """Grade the completions in a result directory again, generating nothing; the golds are those stored beside them."""
    if not (directory / COMPLETIONS).is_file():
        raise UserError(f"{directory}: no {COMPLETIONS} here; give a directory that `open-rs evaluate` wrote")
    before = Evaluation.load(directory) if (directory / RESULTS).is_file() else None
    with Store(directory) as store, nullcontext(grader) if grader is not None else Grader() as judge:
        store.forget_judgements()
        sets: dict[str, dict[str, Problem]] = {}
        for row in store.completions.values():
            problem = Problem(row.problem_id, row.question, row.gold, row.benchmark)
            sets.setdefault(row.benchmark, {}).setdefault(row.problem_id, problem)
        audited = audit_sets({name: tuple(part.values()) for name, part in sets.items()}, _was_raw(before), {})
        desk = Desk(store, judge)
        desk.grade_missing(store.completions)
        desk.collect()
        store.settle({problem_id: place for place, problem_id in enumerate(_golds(audited))})
        numbers = range(1 + max(sample for _, sample in store.completions))
        results = {name: result_of(name, audited[name].problems, audited[name], numbers, store) for name in sets}
    model, mark = (directory.name, {}) if before is None else (before.model, before.fingerprint)
    evaluation = Evaluation(model, results, mark, before.warnings if before is not None else ())
    evaluation.save(directory)
    return evaluation


def _was_raw(before: Evaluation | None) -> bool:
    return before is not None and bool(before.fingerprint.get("raw_gold"))


def _check(sets: Mapping[str, Sequence[Problem]], samples: int | None) -> None:
    if samples is not None and samples < 1:
        raise UserError(f"--samples {samples}: nothing to measure; ask for at least 1 sample a problem")
    empty = [name for name, problems in sets.items() if not problems]
    if empty or not sets:
        raise UserError(f"{', '.join(empty) or 'evaluation'}: no problems to ask; check the data")
    seen: set[str] = set()
    for problem in _all(sets):
        if problem.id in seen:
            raise UserError(f"problem id `{problem.id}` stands twice in the evaluation; make ids unique over all sets")
        seen.add(problem.id)


def _all(sets: Mapping[str, Sequence[Problem]]) -> Iterable[Problem]:
    return (problem for problems in sets.values() for problem in problems)


def audit_sets(
    sets: Mapping[str, Sequence[Problem]], raw_gold: bool, dropped: Mapping[str, Mapping[str, str]]
) -> dict[str, Audited]:
    """Corrected golds and problems to leave out, by set; with `raw_gold` the golds stay and nothing is left out."""
    found = {}
    for name, problems in sets.items():
        part = Audited(tuple(problems), {}, {}) if raw_gold else audit(tuple(problems))
        found[name] = replace(part, unsolvable={**part.unsolvable, **dropped.get(name, {})})
    return found


def _golds(audited: Mapping[str, Audited]) -> dict[str, str]:
    return {problem.id: problem.answer for part in audited.values() for problem in part.problems}


def _wanted(sets: Mapping[str, Sequence[Problem]], protocol: Protocol) -> Iterable[Key]:
    return (
        (problem.id, number)
        for name, problems in sets.items()
        for problem in problems
        for number in range(protocol.num_samples(name))
    )


def _quiet(done: int, of: int, completion: Completion | None) -> None: ...
