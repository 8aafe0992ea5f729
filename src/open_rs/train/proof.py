"""The proof of a run: the same held-out problems before and after training, and what the difference is worth.

Sampled, greedy and pass@k scores stand side by side, and generated tasks add problems one operand longer than any
trained on, so that sharpening can be told from learning.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from open_rs.evaluate.compare import paired
from open_rs.evaluate.protocols import Protocol, protocol_of_recipe
from open_rs.evaluate.result import BenchmarkResult, Evaluation
from open_rs.evaluate.run import evaluate
from open_rs.train.parts import Parts

PASS_AT = 8


@dataclass(frozen=True)
class Measured:
    """One policy on the held-out sets: `sampled` as the recipe's validation says, and once `greedy`."""

    sampled: Evaluation
    greedy: Evaluation

    @property
    def num_tokens(self) -> int:
        """Tokens sampled for it."""
        results = [*self.sampled.benchmarks.values(), *self.greedy.benchmarks.values()]
        return sum(sample.tokens or 0 for result in results for row in result.samples for sample in row)


def measure(parts: Parts, when: str) -> Measured:
    """Evaluate the policy as it is now; everything lies in `results/<when>` and `results/<when>-greedy`."""
    protocol = protocol_of_recipe(parts.recipe)
    greedy = replace(protocol, name=f"{protocol.name}, greedy", temperature=0.0, top_p=1.0, samples=1)
    parts.engine.load(parts.policy.model, version=-1)
    return Measured(
        _evaluate(parts, protocol, f"results/{when}", when),
        _evaluate(parts, greedy, f"results/{when}-greedy", f"{when}, greedy"),
    )


def validate(parts: Parts, step: int) -> dict[str, Any]:
    """A point of the validation curve: accuracy with its interval on the first held-out problems.

    Its verdicts are kept in `results/curve/step-...`, so that neighbouring points can be compared problem by problem.
    """
    settings = parts.recipe.validation
    problems = parts.pool.held_out["held_out"][: settings.curve_problems]
    started = time.perf_counter()
    parts.engine.load(parts.policy.model, version=step)
    evaluation = evaluate(
        parts.engine,
        parts.policy.model.tokenizer,
        {"held_out": problems},
        protocol_of_recipe(parts.recipe),
        samples=settings.curve_samples,
        grader=parts.grader,
        context_length=parts.policy.model.context_length,
    )
    result = evaluation.benchmarks["held_out"]
    if parts.is_main:
        evaluation.save(parts.run.path / "results" / "curve" / f"step-{step:06d}")
    parts.budget.charge({"validate": time.perf_counter() - started})
    return {"validation_accuracy": result.avg, "validation_ci95": [result.ci95.low, result.ci95.high]}


def summarise(base: Measured, trained: Measured) -> dict[str, Any]:
    """Both sides of each held-out set with their paired differences; the first set is also the summary's headline."""
    sets = {name: _compare(name, base, trained) for name in base.sampled.benchmarks}
    headline = sets["held_out"]
    return {
        "base": headline["base"],
        "trained": headline["trained"],
        "difference": headline["differences"]["avg"],
        "sets": sets,
    }


def _evaluate(parts: Parts, protocol: Protocol, place: str, label: str) -> Evaluation:
    return evaluate(
        parts.engine,
        parts.policy.model.tokenizer,
        parts.pool.held_out,
        protocol,
        model=parts.recipe.model.name_or_path,
        grader=parts.grader,
        out=parts.run.path / place,
        context_length=parts.policy.model.context_length,
        progress=lambda done, total, _: parts.observe("evaluation", {"label": label, "done": done, "total": total}),
    )


def _compare(name: str, base: Measured, trained: Measured) -> dict[str, Any]:
    before, after = base.sampled.benchmarks[name], trained.sampled.benchmarks[name]
    greedy_before, greedy_after = base.greedy.benchmarks[name], trained.greedy.benchmarks[name]
    return {
        "base": _side(before, greedy_before),
        "trained": _side(after, greedy_after),
        "differences": {"avg": _difference(after, before), "greedy": _difference(greedy_after, greedy_before)},
    }


def _side(sampled: BenchmarkResult, greedy: BenchmarkResult) -> dict[str, Any]:
    at = f"pass@{PASS_AT}"
    tokens = sampled.diagnostics["tokens"]
    return {
        "avg": sampled.avg,
        "ci95": [sampled.ci95.low, sampled.ci95.high],
        "greedy": greedy.avg,
        "greedy_ci95": [greedy.ci95.low, greedy.ci95.high],
        **({at: sampled.pass_at[PASS_AT]} if PASS_AT in sampled.pass_at else {}),
        "num_problems": len(sampled.problem_ids),
        "samples": sampled.k,
        "truncated": sampled.diagnostics["truncated"],
        "completion_tokens": None if tokens is None else tokens["mean"],
    }


def _difference(after: BenchmarkResult, before: BenchmarkResult) -> dict[str, Any]:
    difference = paired(after, before)
    return {
        "value": difference.value,
        "ci95": [difference.ci95.low, difference.ci95.high],
        "p_value": difference.p_value,
    }
