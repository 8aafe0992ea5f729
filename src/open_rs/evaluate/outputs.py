"""Grading completions that were made elsewhere: rows with a completion and a gold, or the name of a known problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from open_rs.data.sources import QUESTION_FIELDS, read_rows
from open_rs.evaluate.fingerprint import digest
from open_rs.evaluate.records import Completion, Store
from open_rs.evaluate.result import Evaluation
from open_rs.evaluate.run import Desk, audit_sets, result_of
from open_rs.grading import Grader
from open_rs.prompts import THINK_CLOSE, THINK_OPEN
from open_rs.types import Problem, UserError

COMPLETION_FIELDS = (
    "completion", "response", "generation", "generated_text", "model_output", "prediction", "text", "output",
    "completions", "responses", "generations", "outputs",
)  # fmt: skip
GOLD_FIELDS = ("gold", "gold_answer", "expected_answer", "reference_answer", "ground_truth", "target", "answer")
BENCHMARK_FIELDS = ("benchmark", "dataset", "data_source", "task", "source")
ID_FIELDS = ("problem_id", "unique_id", "id", "idx", "index", "uid")
MODEL_FIELDS = ("model", "model_name", "generator")
FINISH_FIELDS = ("finish", "finish_reason")
TOKEN_FIELDS = ("tokens", "num_tokens", "completion_tokens")


@dataclass
class Outputs:
    """One model's completions with the problems that they answer, and how many rows answered none that is known."""

    sets: dict[str, dict[str, Problem]] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)
    unmatched: int = 0
    samples_of: dict[str, int] = field(default_factory=dict)


def read_outputs(path: Path, known: Mapping[str, Sequence[Problem]] | None = None) -> dict[str, Outputs]:
    """Completions by model. `known` sets give golds and ids to rows that name one of their problems by id or question.

    A column of lists holds several samples of a problem. Rows without a benchmark belong to one called by the file.
    Raises UserError where no row holds a completion, or none carries a gold or names a known problem.
    """
    find = _finder(known or {})
    models: dict[str, Outputs] = {}
    for number, row in enumerate(read_rows(path), start=1):
        texts = _first(row, COMPLETION_FIELDS)
        if texts is None:
            columns = ", ".join(f"`{name}`" for name in row)
            raise UserError(
                f"{path}, row {number}: no completion; it has {columns}, expected `completion` or `response`"
            )
        outputs = models.setdefault(str(_first(row, MODEL_FIELDS) or path.name.split(".")[0]), Outputs())
        benchmark = str(_first(row, BENCHMARK_FIELDS) or path.name.split(".")[0])
        problem = find(row) or _own_problem(row, benchmark)
        if problem is None:
            outputs.unmatched += 1
            continue
        _add(outputs, problem, row, texts if isinstance(texts, list) else [texts])
    if not any(outputs.completions for outputs in models.values()):
        raise UserError(
            f"{path}: no row carries a gold ({', '.join(GOLD_FIELDS[:4])}, ...) and no id or question is known; add a "
            "column `gold`, or name the sets with --benchmarks and --data"
        )
    return models


def grade_outputs(
    model: str, outputs: Outputs, grader: Grader | None = None, out: Path | None = None, raw_gold: bool = False
) -> Evaluation:
    """Grade and summarise the completions of one model.

    Raises UserError where `out` holds other completions of the same problems.
    """
    sets = {name: tuple(problems.values()) for name, problems in outputs.sets.items()}
    audited = audit_sets(sets, raw_gold, {})
    golds = {problem.id: problem.answer for part in audited.values() for problem in part.problems}
    opens = _opens_reasoning(outputs.completions)
    with Store(out) as store, nullcontext(grader) if grader is not None else Grader() as judge:
        desk = Desk(store, judge)
        for completion in outputs.completions:
            held = store.completions.get(completion.key)
            if held is not None and held.text != completion.text:
                raise UserError(
                    f"{out}: holds another completion of `{completion.problem_id}`, sample {completion.sample}; choose "
                    "another --out"
                )
            store.add_completion(_prepared(completion, golds[completion.problem_id], opens))
        desk.grade_missing([completion.key for completion in outputs.completions])
        desk.collect()
        store.settle({problem_id: place for place, problem_id in enumerate(golds)})
        numbers = range(1 + max(completion.sample for completion in outputs.completions))
        results = {name: result_of(name, problems, audited[name], numbers, store) for name, problems in sets.items()}
    warnings = [f"{outputs.unmatched} rows name no known problem and carry no gold"] if outputs.unmatched else []
    evaluation = Evaluation(model, results, {"model": model, "loaded_outputs": True}, tuple(warnings))
    if out is not None:
        evaluation.save(out)
    return evaluation


def _prepared(completion: Completion, gold: str, opens: bool) -> Completion:
    return replace(completion, gold=gold, reasoning_open=opens)


def _opens_reasoning(completions: Sequence[Completion]) -> bool:
    """Whether this model's prompt opened `<think>`: then some completion closes it without opening it."""
    return any(THINK_CLOSE in c.text and THINK_OPEN not in c.text for c in completions)


def _add(outputs: Outputs, problem: Problem, row: Mapping[str, Any], texts: Sequence[Any]) -> None:
    problems = outputs.sets.setdefault(problem.source, {})
    problems.setdefault(problem.id, problem)
    taken = outputs.samples_of.get(problem.id, 0)
    outputs.samples_of[problem.id] = taken + len(texts)
    tokens, finish = _first(row, TOKEN_FIELDS), _first(row, FINISH_FIELDS)
    for offset, text in enumerate(texts):
        outputs.completions.append(
            Completion(
                benchmark=problem.source,
                problem_id=problem.id,
                sample=taken + offset,
                question=problem.question,
                gold=problem.answer,
                text=str(text),
                finish=finish if finish in ("stop", "length") else None,
                tokens=tokens if isinstance(tokens, int) else None,
                reasoning_open=False,
            )
        )


def _own_problem(row: Mapping[str, Any], benchmark: str) -> Problem | None:
    """The problem as the row itself states it; the same question is the same problem."""
    gold, question = _first(row, GOLD_FIELDS), _first(row, QUESTION_FIELDS)
    if gold is None:
        return None
    name = row.get("problem_id")
    if name is None:
        name = digest(str(question))[:10] if question is not None else _first(row, ID_FIELDS)
    if name is None:
        name = digest(str(gold))[:10]
    text = str(gold[0]) if isinstance(gold, list) and len(gold) == 1 else str(gold)
    identifier = str(name) if str(name).startswith(f"{benchmark}:") else f"{benchmark}:{name}"
    return Problem(identifier, str(question or ""), text, benchmark)


def _finder(known: Mapping[str, Sequence[Problem]]) -> Callable[[Mapping[str, Any]], Problem | None]:
    """Find a row's problem in the known sets: by question, else by id, whole or behind the set's name."""
    by_question = {_plain(problem.question): problem for problems in known.values() for problem in problems}
    by_id = {problem.id: problem for problems in known.values() for problem in problems}

    def find(row: Mapping[str, Any]) -> Problem | None:
        question = _first(row, QUESTION_FIELDS)
        if question is not None and _plain(str(question)) in by_question:
            return by_question[_plain(str(question))]
        names = [str(row[name]) for name in ID_FIELDS if row.get(name) is not None]
        places = [str(row[name]) for name in BENCHMARK_FIELDS if row.get(name) is not None] or list(known)[:1]
        return next((by_id[key] for key in _candidates(names, places) if key in by_id), None)

    return find


def _candidates(names: Sequence[str], places: Sequence[str]) -> Iterator[str]:
    yield from names
    yield from (f"{place}:{name}" for place in places for name in names)


def _plain(question: str) -> str:
    return " ".join(question.split())


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
