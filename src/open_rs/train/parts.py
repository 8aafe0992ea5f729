"""Everything a run is made of, built from its recipe, and the few things that the loop asks of all of it together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch

from open_rs.config.schema import Recipe
from open_rs.grading import Grader
from open_rs.prompts import opens_reasoning
from open_rs.rewards import Term, build_terms
from open_rs.rollout import build_engine
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.run_dir import RunDir
from open_rs.train import checkpoint
from open_rs.train.budget import Budget, planned_steps
from open_rs.train.guard import Alarm, Guard
from open_rs.train.phases import Phases
from open_rs.train.policy import Policy
from open_rs.train.pool import Pool, build_pool
from open_rs.train.schedule import build_schedule
from open_rs.train.selection import Selection, build_selection
from open_rs.types import Group, Problem, Score

Observe = Callable[[str, Mapping[str, Any]], None]  # (kind of event, what there is to know of it)


@dataclass
class Parts:
    """The parts of one run on one process. Close it, or use it in a `with` block."""

    recipe: Recipe
    run: RunDir
    policy: Policy
    engine: Engine
    grader: Grader
    terms: tuple[Term, ...]
    pool: Pool
    selection: Selection
    budget: Budget
    guard: Guard
    schedule: Callable[[float], float]
    observe: Observe
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def build(cls, recipe: Recipe, run: RunDir, observe: Observe, started: float) -> Self:
        """Load the model, the data and the engine. Raises UserError for whatever of it can't be had."""
        schedule, terms = build_schedule(recipe.optimizer), build_terms(recipe.reward)
        with ExitStack() as opened:
            policy = Policy.build(
                recipe.model,
                recipe.optimizer,
                recipe.algorithm,
                recipe.train,
                temperature=recipe.rollout.temperature,
                record_event=lambda kind, facts: run.event(kind, **facts),
            )
            pool = build_pool(recipe, policy.model)
            grader = opened.enter_context(Grader(recipe.reward.grader_workers, recipe.reward.grader_timeout_seconds))
            engine = build_engine(recipe.rollout)
            opened.callback(engine.close)
            ranks = policy.accelerator
            selection = build_selection(
                recipe.train.selection,
                pool.training,
                recipe.train.prompts_per_step,
                recipe.train.seed,
                ranks.process_index,
                ranks.num_processes,
            )
            steps = planned_steps(recipe.train, len(pool.training))
            most_tokens = recipe.rollout.num_generations * recipe.rollout.max_completion_length
            budget = Budget.open(
                recipe.budget,
                steps,
                run if ranks.is_main_process else None,
                started=started,
                most_tokens_per_step=recipe.train.prompts_per_step * most_tokens,
            )
            opened.pop_all()
        guard = Guard(recipe.guard)
        return cls(recipe, run, policy, engine, grader, terms, pool, selection, budget, guard, schedule, observe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self.grader.close()

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all processes share."""
        return self.policy.accelerator.is_main_process

    # What a step needs

    def goes_on(self, step: int) -> bool:
        """Whether the budget has room for this step; the main process decides for all."""
        return self._as_main_says(lambda: self.budget.goes_on(step)) > 0

    def progress(self, step: int) -> float:
        """The share of the run that will be done when this step ends."""
        return self._as_main_says(lambda: self.budget.progress(step))

    def requests(self, problems: Sequence[Problem]) -> list[Request]:
        """`num_generations` samples of each problem."""
        samples = tuple(range(self.recipe.rollout.num_generations))
        return [Request(self.pool.prompts[problem.id], samples) for problem in problems]

    def sampling(self, step: int) -> Sampling:
        """How to sample in this step; a roll-back changes the noise, since the old noise led into the ditch."""
        rollout = self.recipe.rollout
        return Sampling(
            max_tokens=rollout.max_completion_length,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            min_p=rollout.min_p,
            seed=self.recipe.train.seed + 1_000_003 * self.guard.num_rollbacks,
            step=step,
        )

    def reasoning_open(self, problem_id: str) -> bool:
        """Whether the problem's prompt ends inside `<think>`."""
        return opens_reasoning(self.pool.prompts[problem_id].text)

    def learning_rate(self, progress: float) -> float:
        """The scheduled rate, lowered by each roll-back so far."""
        return self.schedule(progress) * self.guard.learning_rate_factor

    @property
    def batch_settings(self) -> dict[str, Any]:
        """What `build_batch` needs besides the groups and the algorithm."""
        limit = self.recipe.rollout.max_completion_length
        return {"max_completion_length": limit, "sum_over_ranks": self.policy.sum_over_ranks}

    @cached_property
    def term_names(self) -> tuple[str, ...]:
        return tuple(term.name for term in self.terms)

    def sum_over_processes(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Add up counts that every process holds under the same keys, in the same order."""
        total = self.policy.sum_over_ranks(torch.tensor(list(sums.values()), dtype=torch.float64))
        return dict(zip(sums, total.tolist(), strict=True))

    def _as_main_says(self, ask: Callable[[], float]) -> float:
        """The main process's answer on every process, so that all of them take the same turn."""
        return self.sum_over_processes({"answer": float(ask()) if self.is_main else 0.0})["answer"]

    # What a step leaves behind

    def charge(self, phases: Phases, sums: Mapping[str, float], step: int) -> None:
        """Enter a step's seconds and tokens into the ledger."""
        tokens = {"sampled": round(sums["tokens"]), "graded": round(sums["rollouts"])}
        self.budget.charge(phases.seconds, tokens, step)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a step's metrics and show them."""
        if self.is_main:
            self.run.append("metrics.jsonl", row)
        spent = str(self.budget.spending(row["step"])) if self.budget.limits.bind else ""
        self.observe("step", {**row, "last_step": self.budget.last_step, "spent": spent})

    def alarm(self, alarm: Alarm) -> None:
        """Record what the guard decided, and say it."""
        if self.is_main:
            self.run.event(alarm.action, why=alarm.why)
        self.observe("say", {"text": f"{alarm.action}: {alarm.why}"})

    def write_rollouts(self, step: int, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> None:
        """Store every completion of the step with its verdict and its unweighted reward terms."""
        if not self.recipe.train.save_rollouts:
            return
        rank = self.policy.accelerator.process_index
        part = f"-rank{rank}" if rank else ""
        rows = [row for group, group_scores in zip(groups, scores, strict=True) for row in _rows(group, group_scores)]
        self.run.write_rows(f"rollouts/step-{step + 1:06d}{part}.jsonl.gz", rows)

    def note_problems(self) -> None:
        """List what the run holds out and what it leaves out, and say how much was left out."""
        dropped = self.pool.dropped
        if not self.is_main:
            return
        held_out = [(name, problem) for name, problems in self.pool.held_out.items() for problem in problems]
        rows = [{"set": name, "id": p.id, "question": p.question, "answer": p.answer} for name, p in held_out]
        self.run.write_rows("held_out.jsonl", rows)
        if not dropped:
            return
        self.run.write_rows("dropped.jsonl", [{"id": d.id, "row": d.row, "reason": d.reason} for d in dropped])
        left = len(self.pool.training)
        self.observe("say", {"text": f"{len(dropped)} rows dropped (listed in dropped.jsonl), {left} problems left"})

    # Validation and checkpoints

    def validation_is_due(self, step: int) -> bool:
        """After every `every_steps` steps, where held-out problems were set aside."""
        return bool(self.pool.held_out) and step % self.recipe.validation.every_steps == 0

    def checkpoint_is_due(self, step: int) -> bool:
        """After every `save_steps` steps, and whenever `save_minutes` have passed on the main process."""
        if step % self.recipe.train.save_steps == 0:
            return True
        seconds = 60 * self.recipe.train.save_minutes
        return self._as_main_says(lambda: time.monotonic() - self.saved_at > seconds) > 0

    def save(self, step: int) -> None:
        """Write a checkpoint from which step `step` runs next."""
        started = time.perf_counter()
        state = {"guard": self.guard.state()}
        checkpoint.save(self.run, self.policy, step, state, self.recipe.train.keep_checkpoints)
        self.saved_at = time.monotonic()
        self.budget.charge({"save": time.perf_counter() - started})

    def resume(self) -> int:
        """Take up the newest whole checkpoint and forget what was logged after it; returns the next step to run."""
        places = checkpoint.every(self.run)
        if not places:
            return 0
        state = checkpoint.restore(places[-1], self.policy)
        self.guard.load_state(state["guard"])
        step = state["step"]
        if self.is_main:
            self.run.keep_rows("metrics.jsonl", lambda row: row["step"] <= step)
            self.run.event("resumed", step=step)
        self.policy.accelerator.wait_for_everyone()
        return step


def _rows(group: Group, scores: Sequence[Score]) -> list[dict[str, Any]]:
    return [
        {
            "problem_id": rollout.problem_id,
            "question": group.problem.question,
            "gold": group.problem.answer,
            "sample": rollout.sample,
            "text": rollout.text,
            "tokens": len(rollout.tokens),
            "finish": rollout.finish,
            "correct": verdict.correct,
            "extracted": verdict.extracted,
            "reason": verdict.reason,
            "reward": score.total,
            "terms": dict(score.terms),
        }
        for rollout, verdict, score in zip(group.rollouts, group.verdicts, scores, strict=True)
    ]
