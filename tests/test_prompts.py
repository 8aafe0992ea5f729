"""Prompts reach the model as written; reasoning and answer come apart where the model closed its reasoning."""

from __future__ import annotations

import pytest

from open_rs.prompts import opens_reasoning, render, split_reasoning
from open_rs.types import Problem
from tiny import tiny_tokenizer

PROBLEM = Problem("p", "What is {x}?", "1", "test")
SPLITS = {
    "closed": ("2+2 is 4</think>4", True, ("2+2 is 4", "4")),
    "never opened": ("4", False, ("", "4")),
    "never closed, opened by the prompt": ("2+2", True, ("2+2", None)),
    "never closed, opened by the model": ("<think>2+2", False, ("2+2", None)),
    "opened by the model": ("<think>a</think>b", False, ("a", "b")),
    "closed twice": ("a</think>b</think>c", True, ("a</think>b", "c")),
    "empty answer": ("a</think>", True, ("a", "")),
}


def test_braces_of_the_template_reach_the_model_as_they_are() -> None:
    prompt = render(PROBLEM, tiny_tokenizer(), r"Use \boxed{{}}.", "{question} Answer in {braces}.")
    assert prompt.text == r"[system]Use \boxed{{}}.[user]What is {x}? Answer in {braces}.<assistant><think>" + "\n"
    assert opens_reasoning(prompt.text)


def test_without_a_chat_template_the_prompt_is_plain_text() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    prompt = render(PROBLEM, tokenizer, None, "{question}")
    assert prompt.text == "What is {x}?\n"
    assert tokenizer.decode(list(prompt.tokens)) == prompt.text


@pytest.mark.parametrize(("text", "opened", "expected"), SPLITS.values(), ids=SPLITS.keys())
def test_reasoning_and_answer_come_apart(text: str, opened: bool, expected: tuple[str, str | None]) -> None:
    assert split_reasoning(text, opened) == expected


@pytest.mark.parametrize(
    ("text", "opened"),
    [("a<think>\n", True), ("<think>a</think>", False), ("a", False)],
    ids=["open", "closed", "none"],
)
def test_an_open_reasoning_is_seen(text: str, opened: bool) -> None:
    assert opens_reasoning(text) is opened
