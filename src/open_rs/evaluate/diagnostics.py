"""What a completion's text shows besides right or wrong: loops, other languages, answers left in the reasoning."""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass

from open_rs.grading.extract import extract
from open_rs.prompts import split_reasoning

LOOP_TAIL_CHARACTERS = 2_000
LOOP_SHORTEST_CHARACTERS = 400
LOOP_COMPRESSED_SHARE = 0.15  # prose and algebra compress to 0.35 .. 0.5, a repeated sentence below 0.1
FOREIGN_SHARE = 0.05  # of the letters
_ASCII = re.compile(r"[\x00-\x7f]+")
_HOME_SCRIPTS = (
    "LATIN",
    "GREEK",
    "MATHEMATICAL",
    "DOUBLE-STRUCK",
    "SCRIPT",
    "BLACK-LETTER",
    "FULLWIDTH LATIN",
    "MODIFIER",
)


@dataclass(frozen=True, slots=True)
class Signs:
    """What stood out in one completion."""

    looping: bool
    foreign: bool
    answer_only_in_reasoning: bool
    boxed: bool  # whether the answer stands in a box, where the protocol asks for it


def read_signs(text: str, reasoning_open: bool) -> Signs:
    """Look at one completion; `reasoning_open` says that the prompt had already opened `<think>`."""
    reasoning, answer = split_reasoning(text, reasoning_open)
    boxed_only_inside = "\\boxed" in reasoning and "\\boxed" not in (answer or "")
    boxed = extract(text, reasoning_open=reasoning_open).answer is not None
    return Signs(is_looping(text), is_foreign(text), boxed_only_inside, boxed)


def is_looping(text: str) -> bool:
    """Whether the end of the text repeats itself: its last 2,000 characters compress to almost nothing."""
    if len(text) < LOOP_SHORTEST_CHARACTERS:
        return False
    tail = text[-LOOP_TAIL_CHARACTERS:].encode("utf-8", "replace")
    return len(zlib.compress(tail, 6)) < LOOP_COMPRESSED_SHARE * len(tail)


def is_foreign(text: str) -> bool:
    """Whether more than one letter in twenty is neither Latin nor a mathematical symbol."""
    unusual = [letter for letter in _ASCII.sub("", text) if letter.isalpha()]
    if not unusual:
        return False
    foreign = sum(not unicodedata.name(letter, "").startswith(_HOME_SCRIPTS) for letter in unusual)
    letters = len(unusual) + sum(letter.isascii() and letter.isalpha() for letter in text)
    return foreign > FOREIGN_SHARE * letters
