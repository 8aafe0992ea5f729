"""Whether the rewards of a few real rollouts can teach anything, and if not, why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from open_rs.config.schema import Recipe
from open_rs.doctor.findings import Finding
from open_rs.prompts import THINK_OPEN
from open_rs.rewards import Term, score
from open_rs.types import Group, Score

MANY = 0.5  # a share of completions that is worth a warning


@dataclass(frozen=True, slots=True)
class Sampled:
    """Groups of real rollouts with their scores; `scores[q][g]` belongs to `groups[q].rollouts[g]`."""

    groups: tuple[Group, ...]
    scores: tuple[tuple[Score, ...], ...]

    @property
    def totals(self) -> list[float]:
        return [row.total for rows in self.scores for row in rows if row.total is not None]

    @property
    def num_rollouts(self) -> int:
        return sum(len(group.rollouts) for group in self.groups)

    @property
    def truncated(self) -> float:
        """Share of completions that hit the limit."""
        return (
            sum(rollout.finish == "length" for group in self.groups for rollout in group.rollouts) / self.num_rollouts
        )

    @property
    def without_answer(self) -> float:
        """Share of completions in which no answer was found."""
        return sum(verdict.extracted is None for group in self.groups for verdict in group.verdicts) / self.num_rollouts

    @property
    def mean_tokens(self) -> float:
        return sum(len(rollout.tokens) for group in self.groups for rollout in group.rollouts) / self.num_rollouts

    def values_of(self, term: str) -> list[float]:
        """What one term gave, where it gave anything."""
        values = [row.terms[term] for rows in self.scores for row in rows]
        return [value for value in values if value is not None]


def is_constant(sampled: Sampled) -> bool:
    """Whether every completion earned the same, so that no group could teach anything."""
    return len({round(total, 9) for total in sampled.totals}) <= 1


def check_rewards(recipe: Recipe, sampled: Sampled, terms: Sequence[Term], allow_constant: bool) -> list[Finding]:
    """Findings about truncation, missing answers, and rewards that never vary."""
    return [*_shares(recipe, sampled), *_constants(recipe, sampled, terms, allow_constant)]


def _shares(recipe: Recipe, sampled: Sampled) -> Iterator[Finding]:
    limit, number = recipe.rollout.max_completion_length, sampled.num_rollouts
    if sampled.truncated > 0:
        yield Finding(
            "warning" if sampled.truncated >= MANY else "note",
            "truncation",
            f"{round(sampled.truncated * number)} of {number} completions were cut off at "
            f"rollout.max_completion_length {limit}",
        )
    if sampled.without_answer >= MANY:
        yield Finding(
            "warning",
            "answers",
            f"{round(sampled.without_answer * number)} of {number} completions hold no answer to grade",
        )
    at_fault = sum(verdict.correct is None for group in sampled.groups for verdict in group.verdicts)
    if at_fault:
        yield Finding(
            "warning", "golds", f"{at_fault} of {number} completions belong to problems whose gold can't be graded"
        )


def _constants(recipe: Recipe, sampled: Sampled, terms: Sequence[Term], allow_constant: bool) -> Iterator[Finding]:
    constant_terms = [term for term in terms if len(set(sampled.values_of(term.name))) <= 1]
    if is_constant(sampled):
        reasons = "; ".join([_why(recipe, sampled, term, terms) for term in constant_terms] or ["the terms cancel out"])
        text = f"every one of {sampled.num_rollouts} completions earned {_earned(sampled.totals)}: {reasons}"
        level = "warning" if allow_constant or recipe.reward.allow_constant_reward else "refused"
        yield Finding(
            level, "reward", text + ("" if level == "warning" else "; --allow-constant-reward goes on all the same")
        )
        return
    for term in constant_terms:
        yield Finding("warning", "reward", _why(recipe, sampled, term, terms))


def _why(recipe: Recipe, sampled: Sampled, term: Term, terms: Sequence[Term]) -> str:
    """One sentence on a term that never varied; the first cause that holds is the one."""
    values, name = sampled.values_of(term.name), f"`{term.name}` is {_earned(sampled.values_of(term.name))} throughout"
    if not values:
        return f"`{term.name}` could score nothing, since the golds can't be graded"
    if sampled.truncated == 1:
        limit = recipe.rollout.max_completion_length
        return f"{name} because all completions were cut off at {limit} tokens; raise rollout.max_completion_length"
    restored = _with_opening_tag(sampled, terms)
    if set(restored.values_of(term.name)) != set(values):
        gained = _earned(restored.values_of(term.name))
        return (
            f"{name} because it asks for `{THINK_OPEN}`, which the chat template has already written into the prompt "
            f"(with the tag put back it would be {gained}); ask for the closing tag alone"
        )
    verdicts = [verdict for group in sampled.groups for verdict in group.verdicts]
    if sampled.truncated >= MANY and not any(verdict.correct for verdict in verdicts):
        limit = recipe.rollout.max_completion_length
        return f"{name} because most completions were cut off at {limit} tokens; raise rollout.max_completion_length"
    if term.name in ("accuracy", "cosine") and all(verdict.correct for verdict in verdicts):
        return f"{name} because the model already solves these problems; give it harder ones"
    if term.name in ("accuracy", "cosine") and not any(verdict.correct for verdict in verdicts):
        counted = ", ".join(f"{reason} {count}" for reason, count in Counter(v.reason for v in verdicts).most_common(3))
        return f"{name} because no completion is right ({counted}); give easier problems or more tokens"
    return f"{name}, whatever the completion says; take it out or mend it"


def _with_opening_tag(sampled: Sampled, terms: Sequence[Term]) -> Sampled:
    """The same completions as if the prompt had not opened the reasoning."""
    groups = tuple(
        replace(
            group,
            rollouts=tuple(replace(rollout, text=f"{THINK_OPEN}\n{rollout.text}") for rollout in group.rollouts),
        )
        for group in sampled.groups
    )
    return Sampled(groups, tuple(tuple(score(group, terms)) for group in groups))


def _earned(values: Sequence[float]) -> str:
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
