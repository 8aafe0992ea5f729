"""Everything a run is made of, built from its recipe, and the few things that the loop asks of all of it together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from open_rs.config.schema import Recipe
from open_rs.grading import Grader
from open_rs.prompts import opens_reasoning
from open_rs.rewards import Term, build_terms
from open_rs.rollout import build_engine
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.run_dir import RunDir
from open_rs.train import checkpoint
from open_rs.train.budget import Budget
from open_rs.train.guard import Guard
from open_rs.train.policy import Policy
from open_rs.train.pool import Pool, build_pool
from open_rs.train.schedule import build_schedule
from open_rs.train.selection import Selection, build_selection
from open_rs.types import Group, Score, UserError


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
    saved_at: float = field(default_factory=time.monotonic)

    @classmethod
    def build(cls, recipe: Recipe, run: RunDir) -> Self:
        """Load the model, the data and the engine. Raises UserError for whatever of it can't be had."""
        terms = build_terms(recipe.reward)
        with ExitStack() as opened:
            policy = Policy.build(recipe)
            pool = build_pool(recipe, policy.model.tokenizer)
            grader = opened.enter_context(Grader(recipe.reward.grader_workers, recipe.reward.grader_timeout_seconds))
            engine = build_engine(recipe.rollout, policy.model)
            opened.callback(engine.close)
            selection = build_selection(
                recipe.train.selection,
                pool.training,
                recipe.train.prompts_per_step,
                recipe.train.seed,
                policy.accelerator.process_index,
                policy.accelerator.num_processes,
            )
            budget = Budget.open(recipe.budget, recipe.train.max_steps, run)
            opened.pop_all()
        return cls(recipe, run, policy, engine, grader, terms, pool, selection, budget, Guard(recipe.guard))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()
        self.grader.close()

    @property
    def is_main(self) -> bool:
        """Whether this process writes what all processes share."""
        return self.policy.accelerator.is_main_process

    def requests(self, problems: Sequence[Any]) -> list[Request]:
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

    def learning_rate(self, step: int) -> float:
        """The scheduled rate of a step, lowered by each roll-back so far."""
        schedule = build_schedule(self.recipe.optimizer)
        return schedule(self.budget.progress(step)) * self.guard.learning_rate_factor

    def checkpoint_is_due(self, step: int) -> bool:
        """After every `save_steps` steps, and whenever `save_minutes` have passed on the main process."""
        if step % self.recipe.train.save_steps == 0:
            return True
        waited = time.monotonic() - self.saved_at > 60 * self.recipe.train.save_minutes
        return self.policy.sum_over_processes({"due": float(waited and self.is_main)})["due"] > 0

    def save(self, step: int) -> None:
        """Write a checkpoint from which step `step` would run next."""
        state = {"guard": self.guard.state(), "budget": self.budget.state()}
        checkpoint.save(self.run, self.policy, step, state, self.recipe.train.keep_checkpoints)
        self.saved_at = time.monotonic()

    def resume(self) -> int:
        """Take up the newest whole checkpoint and forget what was logged after it; returns the next step to run."""
        places = checkpoint.every(self.run)
        if not places:
            return 0
        state = checkpoint.restore(places[-1], self.policy)
        self.guard.load_state(state["guard"])
        self.budget.load_state(state["budget"])
        step = state["step"]
        if self.is_main:
            self.run.truncate_log("metrics.jsonl", lambda row: row["step"] <= step)
            self.run.event("resumed", step=step)
        self.policy.accelerator.wait_for_everyone()
        return step

    def write_rollouts(self, step: int, groups: Sequence[Group], scores: Sequence[Sequence[Score]]) -> None:
        """Store every completion of the step with its verdict and its unweighted reward terms."""
        if not self.recipe.train.save_rollouts:
            return
        rank = self.policy.accelerator.process_index
        part = f"-rank{rank}" if rank else ""
        rows = [row for group, group_scores in zip(groups, scores, strict=True) for row in _rows(group, group_scores)]
        self.run.write_rows(f"rollouts/step-{step + 1:06d}{part}.jsonl.gz", rows)


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


def check_recipe(recipe: Recipe) -> None:
    """Refuse what can't train: an engine that gives no logprobs or whose weights can't be changed."""
    if recipe.rollout.engine == "endpoint":
        raise UserError(
            "rollout.engine: `endpoint` serves weights that training can't update; use `local` or `vllm` (evaluation and "
            "curation take any endpoint)"
        )
