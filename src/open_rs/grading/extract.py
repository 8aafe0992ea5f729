r"""Owns finding the answer in a completion: the text after the reasoning, then its last balanced `\boxed{}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from open_rs.prompts import split_reasoning

_BOX_TOKEN = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_BOX_START = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MAX_GAP = 80  # characters between two boxes that still belong to one list of answers
_MAX_FALLBACK = 2000  # characters at the end of an answer in which a fallback looks
_MATH_SPAN = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_ANSWER_CUE = re.compile(r"answer(?:\s+is\s*|\s*[:=])[:=]?\s*", re.IGNORECASE)
_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?%?")


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answer that a completion gives, or why it gives none.

    `boxes` are the trailing boxes that stand close together, last one last: they matter where the gold is a list.
    """

    answer: str | None
    reason: str
    boxes: tuple[str, ...] = ()


def extract(text: str, *, reasoning_open: bool = False, fallback: bool = False) -> Extraction:
    r"""Find the final answer.

    `reasoning_open` says that the prompt already opened `<think>`; a completion that never closes it has no answer
    (`truncated`). Reasoning is read in one case: its very last words are a box, and what follows `</think>` states
    nothing (it was cut off). `fallback` also accepts, in this order, what follows the last "answer is", the
    last formula and the last number of the final 2,000 characters; it is meant for evaluation, where formats vary.
    `extract("<think>\\boxed{1}</think> so \\boxed{2}").answer == "2"`.
    """
    reasoning, answer = split_reasoning(text, reasoning_open)
    if answer is None:
        return Extraction(None, "truncated")
    boxes = trailing_boxes(answer) or _closing_box(reasoning, answer)
    if boxes:
        return Extraction(boxes[-1], "box" if boxes[-1].strip() else "empty_box", boxes)
    found = _fall_back(answer) if fallback else None
    return Extraction(found, "no_answer" if found is None else "fallback")


def trailing_boxes(text: str) -> tuple[str, ...]:
    """Contents of the outermost balanced boxes at the end of `text`, each at most 80 characters from the next."""
    run: list[str] = []
    next_start: int | None = None
    for start, content_start, end in reversed(_outermost_boxes(text)):
        if next_start is not None and next_start - end > _MAX_GAP:
            break
        run.append(text[content_start:end])
        next_start = start
    return tuple(reversed(run))


def _outermost_boxes(text: str) -> list[tuple[int, int, int]]:
    """(start, start of content, end of content) of every balanced box that no other balanced box holds."""
    first = _BOX_START.search(text)
    if first is None:
        return []
    open_braces: list[tuple[int, int] | None] = []
    spans: list[tuple[int, int, int]] = []
    for token in _BOX_TOKEN.finditer(text, first.start()):
        if token.group() == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                while spans and spans[-1][0] > box[0]:
                    spans.pop()
                spans.append((*box, token.start()))
        elif token.group().endswith("{") and len(token.group()) != 2:
            is_box = len(token.group()) > 1
            open_braces.append((token.start(), token.end()) if is_box else None)
    return spans


def _closing_box(reasoning: str, answer: str) -> tuple[str, ...]:
    """The box with which the reasoning ended, where the answer after it has none and names no other."""
    if not reasoning or _ANSWER_CUE.search(answer):
        return ()
    spans = _outermost_boxes(reasoning)
    if not spans or reasoning[spans[-1][2] + 1 :].strip(" \n.$*\\])"):
        return ()
    return (reasoning[spans[-1][1] : spans[-1][2]],)


def _fall_back(answer: str) -> str | None:
    tail = answer[-_MAX_FALLBACK:]
    cues = list(_ANSWER_CUE.finditer(tail))
    if cues:
        line = tail[cues[-1].end() :].strip().split("\n", 1)[0].strip()
        span = _MATH_SPAN.search(line)
        stated = _inside(span) if span else re.split(r"\.(?:\s|$)", line, maxsplit=1)[0].strip(" .*")
        if stated:
            return stated
    spans = list(_MATH_SPAN.finditer(tail))
    if spans:
        return _inside(spans[-1])
    numbers = _NUMBER.findall(tail)
    return numbers[-1] if numbers else None


def _inside(span: re.Match[str]) -> str:
    return next(group for group in span.groups() if group is not None).strip()
