"""The whole examination of a recipe: load what it names, sample a few real rollouts, update once, plan, and add up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from open_rs.config.schema import Recipe
from open_rs.doctor.findings import Finding, Prompts, check_prompts
from open_rs.doctor.projection import Pace, Projection, check_projection, project
from open_rs.doctor.reward_check import Sampled, check_rewards, is_constant
from open_rs.grading import Grader
from open_rs.models import CausalLM
from open_rs.prompts import opens_reasoning
from open_rs.rewards import Term, build_terms, score
from open_rs.rollout import build_engine
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.train.batch import build_batch
from open_rs.train.collect import collect
from open_rs.train.memory import MemoryPlan, available_bytes, load_shape, plan_memory, show_bytes
from open_rs.train.phases import Phases
from open_rs.train.policy import Policy
from open_rs.train.pool import REPEATS_HELD_OUT, Pool, build_pool
from open_rs.train.schedule import build_schedule

FIRST_PROBLEMS, FIRST_SAMPLES = 2, 4  # the 8 rollouts that everybody looks at
MORE_PROBLEMS = 8  # before a constant reward is believed
PROBE_TOKENS = 32  # of each row, to measure decoding at full width


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found. `is_refused` says whether a run would be money thrown away."""

    recipe: Recipe
    prompts: Prompts
    sampled: Sampled
    memory: MemoryPlan
    available: int
    projection: Projection
    findings: tuple[Finding, ...]

    @property
    def is_refused(self) -> bool:
        return any(finding.level == "refused" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "prompt": {"text": self.prompts.first, "tokens": len(self.prompts.first_tokens)},
            "stop_tokens": {str(number): text for number, text in self.prompts.stop_tokens.items()},
            "rollouts": list(rollout_rows(self.sampled)),
            "truncated": self.sampled.truncated,
            "without_answer": self.sampled.without_answer,
            "memory": {
                "updating": dict(self.memory.updating),
                "sampling": dict(self.memory.sampling),
                "peak": self.memory.peak,
                "available": self.available,
            },
            "projection": asdict(self.projection),
            "findings": [asdict(finding) for finding in self.findings],
            "refused": self.is_refused,
        }


def examine(recipe: Recipe, allow_constant: bool = False) -> Diagnosis:
    """Examine a recipe. Raises UserError for whatever it names that can't be had."""
    build_schedule(recipe.optimizer)
    terms = build_terms(recipe.reward)
    shape = load_shape(recipe.model)
    available = available_bytes(recipe.model)  # before the model takes its share
    policy = Policy.build(
        recipe.model, recipe.optimizer, recipe.algorithm, recipe.train, temperature=recipe.rollout.temperature
    )
    pool = build_pool(recipe, policy.model)
    prompts = read_prompts(pool, policy.model)
    memory = plan_memory(recipe, shape, policy.model.device)
    engine = build_engine(recipe.rollout)
    try:
        engine.load(policy.model, version=0)
        sampled = sample(recipe, pool, engine, terms)
        pace = measure_pace(recipe, pool, engine, policy, sampled)
    finally:
        engine.close()
    projection = project(recipe, pace, len(pool.training), prompts.num_held_out)
    findings = [
        *check_prompts(recipe, prompts),
        *check_rewards(recipe, sampled, terms, allow_constant),
        *_check_memory(memory, available),
        *check_projection(recipe, projection),
    ]
    return Diagnosis(recipe, prompts, sampled, memory, available, projection, tuple(findings))


def read_prompts(pool: Pool, model: CausalLM) -> Prompts:
    """The first prompt, and counts over all of them."""
    first = pool.prompts[pool.training[0].id]
    held_out = [problem for problems in pool.held_out.values() for problem in problems]
    pad = model.tokenizer.pad_token_id
    return Prompts(
        first=first.text,
        first_tokens=first.tokens,
        num_training=len(pool.training),
        num_held_out=len(held_out),
        num_over_limit=sum(row.reason.startswith("prompt over") for row in pool.dropped),
        num_overlapping=sum(row.reason == REPEATS_HELD_OUT for row in pool.dropped),
        stop_tokens={number: _token(model, number) for number in sorted(model.stop_ids)},
        pad_token=_token(model, pad) if isinstance(pad, int) else None,
        context_length=model.context_length,
    )


def sample(recipe: Recipe, pool: Pool, engine: Engine, terms: Sequence[Term]) -> Sampled:
    """Eight rollouts of two problems; more problems before a constant reward is believed."""
    first = _sample(recipe, pool, engine, terms, pool.training[:FIRST_PROBLEMS])
    if not is_constant(first):
        return first
    more = _sample(recipe, pool, engine, terms, pool.training[FIRST_PROBLEMS:MORE_PROBLEMS])
    return Sampled(first.groups + more.groups, first.scores + more.scores)


def measure_pace(recipe: Recipe, pool: Pool, engine: Engine, policy: Policy, sampled: Sampled) -> Pace:
    """Decode a few tokens at the width of a real step, and run one real update on the rollouts at hand."""
    width = min(recipe.train.prompts_per_step * recipe.rollout.num_generations, recipe.rollout.max_concurrent)
    problems = pool.training[: max(1, width // recipe.rollout.num_generations)]
    samples = tuple(range(recipe.rollout.num_generations))
    requests = [Request(pool.prompts[problem.id], samples) for problem in problems]
    limit = min(PROBE_TOKENS, recipe.rollout.max_completion_length)
    with engine.awake():
        list(engine.generate(requests[:1], _sampling(recipe, limit, step=2)))  # first use of kernels is not the pace
        started = time.perf_counter()
        tokens = sum(len(rollout.tokens) for rollout in engine.generate(requests, _sampling(recipe, limit, step=3)))
        seconds = time.perf_counter() - started
    return Pace(tokens / seconds, *_time_update(recipe, policy, sampled), mean_tokens=sampled.mean_tokens)


def rollout_rows(sampled: Sampled) -> list[dict[str, Any]]:
    """One row for each rollout: what it says, how it ended, what it earned by term."""
    return [
        {
            "problem_id": rollout.problem_id,
            "tokens": len(rollout.tokens),
            "finish": rollout.finish,
            "correct": verdict.correct,
            "reason": verdict.reason,
            "terms": dict(scored.terms),
            "reward": scored.total,
            "text": rollout.text,
        }
        for group, scores in zip(sampled.groups, sampled.scores, strict=True)
        for rollout, verdict, scored in zip(group.rollouts, group.verdicts, scores, strict=True)
    ]


def _sample(recipe: Recipe, pool: Pool, engine: Engine, terms: Sequence[Term], problems: Sequence[Any]) -> Sampled:
    requests = [Request(pool.prompts[problem.id], tuple(range(FIRST_SAMPLES))) for problem in problems]

    def reasoning_open(problem_id: str) -> bool:
        return opens_reasoning(pool.prompts[problem_id].text)

    with Grader(recipe.reward.grader_workers, recipe.reward.grader_timeout_seconds) as grader:
        rollouts = engine.generate(requests, _sampling(recipe, recipe.rollout.max_completion_length, step=0))
        groups = collect(problems, rollouts, grader, reasoning_open, Phases())
    return Sampled(tuple(groups), tuple(tuple(score(group, terms)) for group in groups))


def _sampling(recipe: Recipe, max_tokens: int, step: int) -> Sampling:
    rollout = recipe.rollout
    return Sampling(
        max_tokens, rollout.temperature, rollout.top_p, rollout.top_k, rollout.min_p, recipe.train.seed, step
    )


def _time_update(recipe: Recipe, policy: Policy, sampled: Sampled) -> tuple[float, float]:
    """(trained tokens a second, share of groups with a signal); the policy is the doctor's own and is thrown away."""
    limit = recipe.rollout.max_completion_length
    batch = build_batch(sampled.groups, sampled.scores, recipe.algorithm, max_completion_length=limit)
    signal = sum(len({row.total for row in rows}) > 1 for rows in sampled.scores) / len(sampled.scores)
    trained = int(batch.trained.sum())
    if not trained:
        return 0.0, signal
    started = time.perf_counter()
    policy.update(batch, recipe.optimizer.learning_rate)
    return trained / (time.perf_counter() - started), signal


def _check_memory(memory: MemoryPlan, available: int) -> list[Finding]:
    peak = f"{show_bytes(memory.peak)} while {memory.peak_at}"
    if memory.peak <= available:
        return [Finding("fine", "memory", f"{peak} at most, of {show_bytes(available)} free")]
    items = {**memory.updating, **memory.sampling}
    largest = max(items, key=lambda item: items[item])
    return [Finding("warning", "memory", f"{peak}, but {show_bytes(available)} are free; {REMEDIES[largest]}")]


def _token(model: CausalLM, number: int) -> str:
    return str(model.tokenizer.convert_ids_to_tokens(number))


REMEDIES = {  # the largest item of the plan: what makes it smaller
    "weights": "use a smaller model, or model.dtype=bfloat16",
    "masters": "train an adapter: model.lora={rank: 32}",
    "optimizer": "set optimizer.name=adamw_8bit, or train an adapter: model.lora={rank: 32}",
    "reference": "set algorithm.beta=0, or train an adapter, whose base is the reference: model.lora={rank: 32}",
    "gradients": "train an adapter: model.lora={rank: 32}",
    "activations": "set train.gradient_checkpointing=true, or lower train.tokens_per_micro_batch",
    "scratch": "lower train.logprob_chunk_tokens or train.tokens_per_micro_batch",
    "cache": "lower rollout.max_concurrent, or set rollout.cache_tokens",
    "packed weights": "use a smaller model, or model.dtype=bfloat16",
}
