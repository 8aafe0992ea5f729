"""Rendering a problem into what the model reads, and splitting what it wrote into reasoning and answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from open_rs.types import Problem

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered problem. Engines that share the tokenizer read `tokens` [P]; a chat endpoint reads `messages`."""

    problem_id: str
    messages: tuple[Mapping[str, str], ...]
    text: str
    tokens: tuple[int, ...]


def build_messages(problem: Problem, system: str | None, user_template: str) -> tuple[Mapping[str, str], ...]:
    """Chat messages for one problem. Only `{question}` is replaced: a literal `{{}}` reaches the model as written."""
    user = {"role": "user", "content": user_template.replace("{question}", problem.question)}
    return (user,) if system is None else ({"role": "system", "content": system}, user)


def render(problem: Problem, tokenizer: Any, system: str | None, user_template: str) -> Prompt:
    """Render with the tokenizer's chat template, or as plain text where the tokenizer has none."""
    messages = build_messages(problem, system, user_template)
    if tokenizer.chat_template is None:
        text = "\n\n".join(message["content"] for message in messages) + "\n"
        return Prompt(problem.id, messages, text, tuple(tokenizer(text)["input_ids"]))
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return Prompt(problem.id, messages, text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"]))


def opens_reasoning(prompt_text: str) -> bool:
    """Whether the prompt ends inside an open `<think>`, as DeepSeek-R1's template leaves it."""
    return prompt_text.rfind(THINK_OPEN) > prompt_text.rfind(THINK_CLOSE)


def split_reasoning(text: str, reasoning_open: bool) -> tuple[str, str | None]:
    """Split a completion into (reasoning, answer); the answer is None when reasoning was opened and never closed.

    `split_reasoning("2+2 is 4</think>4", True) == ("2+2 is 4", "4")`; `split_reasoning("4", False) == ("", "4")`.
    """
    reasoning, closed, answer = text.rpartition(THINK_CLOSE)
    if closed:
        return reasoning.replace(THINK_OPEN, "", 1), answer
    if reasoning_open or THINK_OPEN in text:
        return text.replace(THINK_OPEN, "", 1), None
    return "", text
