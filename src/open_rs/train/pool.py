"""The problems of a run: training problems with their rendered prompts, held-out ones, and those that were dropped."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from open_rs.config.schema import Recipe
from open_rs.data import arithmetic
from open_rs.data.sources import Dropped, load_problems
from open_rs.models import CausalLM
from open_rs.prompts import Prompt, render
from open_rs.types import Problem, UserError

REPEATS_HELD_OUT = "repeats a held-out question under another id"


@dataclass(frozen=True)
class Pool:
    """`training` and the lists of `held_out` have no problem in common; `prompts` holds a prompt for each of them."""

    training: tuple[Problem, ...]
    held_out: Mapping[str, tuple[Problem, ...]]  # name of the set -> problems; empty without validation
    prompts: Mapping[str, Prompt]
    dropped: tuple[Dropped, ...]


def build_pool(recipe: Recipe, model: CausalLM) -> Pool:
    """Load, render, drop what is over the prompt limit or fills the context, and take the held-out problems away.

    Raises UserError when nothing remains to train on.
    """
    loaded = load_problems(recipe.data)
    rendered = {problem.id: _render(problem, recipe, model.tokenizer) for problem in loaded.problems}
    limit = min(recipe.prompt.max_prompt_length, model.context_length - 1)
    too_long = {name for name, prompt in rendered.items() if len(prompt.tokens) > limit}
    kept = [problem for problem in loaded.problems if problem.id not in too_long]
    held_out = _hold_out(recipe, kept)
    taken = {_bare(problem) for problems in held_out.values() for problem in problems}
    training = tuple(problem for problem in kept if _bare(problem) not in taken)
    chosen = {problem.id for problems in held_out.values() for problem in problems}
    repeats = [problem for problem in kept if _bare(problem) in taken and problem.id not in chosen]
    if not training:
        raise UserError(
            f"data: no problem remains to train on: {len(loaded.dropped)} rows were unusable, {len(too_long)} prompts "
            f"were over {limit} tokens, {len(taken)} are held out; raise prompt.max_prompt_length or give more data"
        )
    for problems in held_out.values():
        rendered |= {problem.id: _render(problem, recipe, model.tokenizer) for problem in problems}
    reason = f"prompt over {limit} tokens"
    long = (Dropped(name, reason) for name in rendered if name in too_long)
    dropped = (*loaded.dropped, *long, *(Dropped(problem.id, REPEATS_HELD_OUT) for problem in repeats))
    return Pool(training, held_out, rendered, dropped)


def _bare(problem: Problem) -> str:
    """The question without its white space: a repeat under another id must not stand on both sides."""
    return "".join(problem.question.split())


def _render(problem: Problem, recipe: Recipe, tokenizer: Any) -> Prompt:
    return render(problem, tokenizer, recipe.prompt.system, recipe.prompt.user_template)


def _hold_out(recipe: Recipe, problems: list[Problem]) -> dict[str, tuple[Problem, ...]]:
    """Generated problems have a held-out split of their own; of any other set a seeded draw is taken away."""
    wanted = recipe.validation.num_problems
    if wanted == 0:
        return {}
    if recipe.data.name == "arithmetic":
        settings = recipe.data.arithmetic
        longer = settings.model_copy(
            update={"min_operands": settings.max_operands + 1, "max_operands": settings.max_operands + 1}
        )
        return {
            "held_out": tuple(arithmetic.generate(settings, "held_out", wanted)),
            "one_operand_longer": tuple(arithmetic.generate(longer, "held_out", max(wanted // 2, 1))),
        }
    if wanted >= len(problems):
        raise UserError(
            f"validation.num_problems: {wanted} problems to hold out, but only {len(problems)} are there; use fewer"
        )
    return {"held_out": tuple(random.Random(f"hold out/{recipe.train.seed}").sample(problems, wanted))}
