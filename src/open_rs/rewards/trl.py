"""Owns the bridge to TRL's reward functions: ours given to its trainers, and its functions used in our recipes."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from open_rs.grading import Grader
from open_rs.rewards.terms import REFUSED, TERMS
from open_rs.types import Group, Problem, Rollout, UserError, Verdict

Messages = Sequence[dict[str, Any]]
TrlReward = Callable[..., list[float | None]]
_CHARACTERS_ONLY = frozenset({"accuracy", "format", "tag_count", "reasoning_steps", "repetition_penalty", "language"})


def as_trl(name: str, *, reasoning_open: bool = False, **params: Any) -> TrlReward:
    """A reward of the table with TRL's signature: `(completions, solution, **columns) -> list[float | None]`.

    Completions are chat-style (`[{"role": "assistant", "content": ...}]`) or plain strings. Terms that count tokens
    need TRL's `completion_ids` column. `reasoning_open` says that the chat template ends the prompt inside `<think>`.
    `GRPOTrainer(reward_funcs=[as_trl("format"), as_trl("accuracy")], ...)`.
    """
    if name in REFUSED:
        raise UserError(f"as_trl: `{name}` is refused: {REFUSED[name]}")
    if name not in TERMS:
        raise UserError(f"as_trl: `{name}` is not a reward; known: {', '.join(TERMS)}")
    term = TERMS[name]
    needs_tokens = name not in _CHARACTERS_ONLY and params.get("length_unit") != "characters"

    def reward(completions: Sequence[Any], solution: Sequence[str] | None = None, **columns: Any) -> list[float | None]:
        token_ids = columns.get("completion_ids")
        if needs_tokens and token_ids is None:
            raise UserError(f"as_trl: `{name}` counts tokens and TRL gave no `completion_ids`; use TRL 0.16 or later")
        golds = list(solution) if solution is not None else [""] * len(completions)
        groups = _groups(
            [_content(completion) for completion in completions], golds, token_ids, columns, reasoning_open
        )
        return [value for group in groups for value in term(group, **params)]

    reward.__name__ = name  # TRL logs rewards by this name
    return reward


def from_trl(function: Callable[..., Any]) -> Callable[[Group], list[float | None]]:
    """A TRL reward function, async ones too, as a function of a group.

    It receives chat-style `prompts` and `completions`, `completion_ids`, and the problem's `solution`, `answer`,
    `problem` and whatever `meta` holds, each repeated for every completion.
    """

    def reward(group: Group) -> list[float | None]:
        values = function(**_columns(group))
        return list(_finished(values) if inspect.isawaitable(values) else values)

    return reward


def _columns(group: Group) -> dict[str, Any]:
    count = len(group.rollouts)
    problem = group.problem
    repeated = {**problem.meta, "solution": problem.answer, "answer": problem.answer, "problem": problem.question}
    return {
        **{name: [value] * count for name, value in repeated.items()},
        "prompts": [[{"role": "user", "content": problem.question}]] * count,
        "completions": [[{"role": "assistant", "content": rollout.text}] for rollout in group.rollouts],
        "completion_ids": [list(rollout.tokens) for rollout in group.rollouts],
    }


def _finished(awaitable: Any) -> Any:
    """The value of an awaitable, also where an event loop already runs in this thread."""

    async def wait() -> Any:
        return await awaitable

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    outcome: list[Any] = []
    failure: list[BaseException] = []
    thread = threading.Thread(target=_run_apart, args=(wait, outcome, failure))
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _run_apart(wait: Callable[[], Any], outcome: list[Any], failure: list[BaseException]) -> None:
    try:
        outcome.append(asyncio.run(wait()))
    except BaseException as error:  # handed to the thread that waits
        failure.append(error)


def _content(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _groups(
    texts: list[str], golds: list[str], token_ids: Any, columns: dict[str, Any], reasoning_open: bool
) -> Iterator[Group]:
    """Consecutive completions of one prompt, as TRL lays them out, graded."""
    grader = _shared_grader()
    pending = [
        grader.submit(gold, text, reasoning_open=reasoning_open) if gold else None
        for gold, text in zip(golds, texts, strict=True)
    ]
    prompts = columns.get("prompts") or golds
    keys = [repr((prompt, gold)) for prompt, gold in zip(prompts, golds, strict=True)]
    for key, indices in groupby(range(len(texts)), key=keys.__getitem__):
        members = list(indices)
        yield Group(
            Problem(id=key, question="", answer=golds[members[0]], source="trl"),
            tuple(_rollout(key, index, texts[index], token_ids) for index in members),
            tuple(_verdict(pending[index]) for index in members),
        )


def _verdict(pending: Any) -> Verdict:
    return Verdict(None, None, "no_gold") if pending is None else pending.result()


def _rollout(key: str, index: int, text: str, token_ids: Any) -> Rollout:
    tokens = () if token_ids is None else tuple(token_ids[index])
    return Rollout(key, index, (), tokens, None, text, "stop", 0)


def _shared_grader() -> Grader:
    if not _GRADERS:
        _GRADERS.append(Grader())
    return _GRADERS[0]


_GRADERS: list[Grader] = []
