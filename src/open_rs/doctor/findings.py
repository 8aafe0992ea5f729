"""What can be said of a recipe's prompts before anything is sampled: each check gives findings in a user's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from open_rs.config.schema import Recipe
from open_rs.prompts import THINK_OPEN, opens_reasoning

Level = Literal["fine", "note", "warning", "refused"]
MANY_DROPPED = 0.2  # of all problems, over the prompt limit
SHORT_LIMIT = 64  # tokens in which hardly any reasoning fits


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check; `refused` ones stop a run before it starts."""

    level: Level
    topic: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the checks read: the first prompt as the model sees it, and how many there are."""

    first: str
    first_tokens: tuple[int, ...]
    num_training: int
    num_held_out: int
    num_over_limit: int
    num_overlapping: int
    stop_tokens: Mapping[int, str]
    pad_token: str | None
    context_length: int


def check_prompts(recipe: Recipe, prompts: Prompts) -> list[Finding]:
    """Every finding about prompts, in the order of reading."""
    return [finding for check in CHECKS for finding in check(recipe, prompts)]


def _thinking(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    if not opens_reasoning(prompts.first):
        return
    yield Finding(
        "note",
        "reasoning",
        f"the chat template already opens `{THINK_OPEN}`, so a completion never holds the opening tag; a reward that "
        "asks for it is 0 for ever",
    )
    for index, term in enumerate(recipe.reward.terms):
        if term.name == "tag_count" and any(THINK_OPEN in tag for tag in term.params.get("tags", [THINK_OPEN])):
            yield Finding(
                "warning",
                "reasoning",
                f"reward.terms.{index}: `tag_count` counts `{THINK_OPEN}`, which the template has already written, so "
                "that share of it can't be earned; give the other tags as params.tags",
            )


def _braces(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    for key, text in (("prompt.system", recipe.prompt.system), ("prompt.user_template", recipe.prompt.user_template)):
        if text is not None and ("{{" in text or "}}" in text):
            yield Finding(
                "warning",
                "braces",
                rf"{key}: doubled braces `{{{{}}}}` reach the model as they stand; nothing formats this text, so write "
                r"\boxed{}",
            )


def _system_prompt(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    if recipe.prompt.system is not None:
        yield Finding(
            "warning",
            "system prompt",
            "prompt.system: benchmarks are asked without a system prompt (the paper's protocol), so the model is "
            "measured on prompts that it was not trained on; validation uses it",
        )


def _stop_tokens(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    if not prompts.stop_tokens:
        yield Finding(
            "refused", "stop", "the model and its tokenizer name no stop token, so every completion is cut off"
        )
        return
    names = ", ".join(f"{text!r} ({number})" for number, text in prompts.stop_tokens.items())
    yield Finding("fine", "stop", f"a completion ends at {names}")
    if prompts.pad_token in prompts.stop_tokens.values():
        yield Finding(
            "note", "stop", f"{prompts.pad_token!r} also pads; padding is never read from ids here, so it is trained"
        )


def _lengths(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    limit, total = recipe.prompt.max_prompt_length, prompts.num_training + prompts.num_held_out + prompts.num_over_limit
    if prompts.num_over_limit:
        share = prompts.num_over_limit / total
        yield Finding(
            "warning" if share > MANY_DROPPED else "note",
            "length",
            f"{prompts.num_over_limit:,} of {total:,} prompts are over prompt.max_prompt_length {limit}, and dropped",
        )
    answer = recipe.rollout.max_completion_length
    if answer < SHORT_LIMIT:
        yield Finding(
            "warning",
            "length",
            f"rollout.max_completion_length: {answer} tokens leave no room to reason; a cut-off answer earns nothing",
        )
    room = prompts.context_length - len(prompts.first_tokens)
    if answer > room:
        yield Finding(
            "warning",
            "length",
            f"rollout.max_completion_length: {answer} tokens, but the model reads {prompts.context_length} and the "
            f"first prompt has {len(prompts.first_tokens)}; completions end after {room}",
        )


def _overlap(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    if prompts.num_overlapping:
        yield Finding(
            "warning",
            "validation",
            f"validation.num_problems: {prompts.num_overlapping} training rows repeat one of the "
            f"{prompts.num_held_out} held-out questions under another id and are left out; take repeats out first "
            "(`open-rs curate`)",
        )


def _amounts(recipe: Recipe, prompts: Prompts) -> Iterator[Finding]:
    needed = recipe.train.max_steps * recipe.train.prompts_per_step
    passes = needed / prompts.num_training
    yield Finding(
        "fine",
        "data",
        f"{prompts.num_training:,} training problems, {prompts.num_held_out:,} held out; {recipe.train.max_steps} "
        f"steps take each {passes:.2g} times",
    )


CHECKS: Sequence[Any] = (_amounts, _lengths, _overlap, _thinking, _braces, _system_prompt, _stop_tokens)
