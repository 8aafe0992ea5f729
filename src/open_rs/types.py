"""The nouns that travel between rooms: frozen, complete when made, and free of every dependency.

Legend for shapes, here and everywhere else: `Q` problems a step, `G` samples a problem, `N = Q * G` sequences,
`P` prompt tokens, `C` completion tokens, `T` padded row, `V` vocabulary. A value at index `t` describes token `t`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Finish = Literal["stop", "length"]


class UserError(Exception):
    """A failure that a user can mend: its message says what, where, and what to do. The command exits with code 2."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer.

    `id` is unique within its source; `source` names the data set. `meta` holds what the source knows besides
    (level, solution, pass rate) and is never read by the learner.
    """

    id: str
    question: str
    answer: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion.

    `tokens` [C] includes the stop token when `finish` is "stop"; `text` does not. `logprobs` [C] are the sampler's
    log-probabilities at the sampling temperature, before top-p, top-k or min-p cut the distribution; None where an
    engine can't give them. `policy_version` is the number of optimiser batches that the sampling weights had seen.
    """

    problem_id: str
    sample: int
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    text: str
    finish: Finish
    policy_version: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the grader says of one completion. `correct` is None when the problem is at fault: nobody is scored."""

    correct: bool | None
    extracted: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one problem in one step, with their verdicts; `rollouts[g]` belongs to `verdicts[g]`."""

    problem: Problem
    rollouts: tuple[Rollout, ...]  # [G]
    verdicts: tuple[Verdict, ...]  # [G]

    def __post_init__(self) -> None:
        assert len(self.rollouts) == len(self.verdicts), "a rollout without its verdict"


@dataclass(frozen=True, slots=True)
class Score:
    """The weighted reward of one completion and its unweighted terms; None where the problem could not be scored."""

    total: float | None
    terms: Mapping[str, float | None]
