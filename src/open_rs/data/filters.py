"""Rules over one problem: each returns the reason to drop it, or None. Nothing here reads a model or another row."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from open_rs.types import Problem, UserError

Rule = Callable[..., str | None]

_TASK = (
    r"find|determine|compute|calculate|evaluate|solve|simplify|prove|show|express|write|sketch|draw|graph|give|state|"
    r"what|how|which|who|when|where|is|are|does|if|explain|estimate|derive|list|describe"
)
_PROOF = re.compile(
    r"\b(?:prove|show|demonstrate|verify|justify)\b[^.?!]{0,40}?\b(?:that|the|if|for|there|:)", re.IGNORECASE
)
_ASKS_A_VALUE = re.compile(
    r"\b(?:find|determine|compute|calculate|evaluate|what|how many|how much|solve|which|express|simplify)\b|\?",
    re.IGNORECASE,
)
_MARKERS = (
    (r"\(?a[).]", r"\(?b[).]"),
    (r"\(?i[).]", r"\(?ii[).]"),
    (r"\(?1[).]", r"\(?2[).]"),
    (r"part\s+[a1]\W", r"part\s+[b2]\W"),
    (r"question\s+1\W", r"question\s+2\W"),
)
_PARTS = tuple(
    tuple(re.compile(rf"(?<![\w(]){marker}\s*(?:{_TASK})\b", re.IGNORECASE) for marker in pair) for pair in _MARKERS
)
_CHOICES = (
    tuple(re.compile(rf"\({letter}\)") for letter in "ABC"),
    tuple(re.compile(rf"(?:^|\s|\$){letter}[.:)]\s") for letter in "ABC"),
)
_CHOOSE = re.compile(
    r"\b(?:which (?:one )?of the following|choose the correct|select the correct|(?:letter of )?the correct option)\b",
    re.IGNORECASE,
)
_DRAWING = re.compile(
    r"\[/?asy\]|\\begin\{(?:tikzpicture|asy|picture)\}|\\includegraphics|<(?:img|image|svg)\b|!\[[^\]]{0,200}\]",
    re.IGNORECASE,
)
_PICTURE = r"(?:figures?|diagrams?|drawings?|pictures?|charts?|images?|illustrations?)"
_PLACE = r"(?:below|above|here|at (?:the )?(?:right|left))"
_FIGURE = re.compile(
    rf"\b(?:(?:in|from|see|using|shown in|of) the (?:\w+ ){{0,2}}{_PICTURE}|the (?:figure|diagram) shows|"
    rf"(?:{_PICTURE}|table|graph) (?:{_PLACE}|shown)|(?:as|is|are) (?:shown|pictured|depicted) (?:{_PLACE}|in)|"
    r"(?:figure|fig\.) \d+)\b",
    re.IGNORECASE,
)
_LINK = re.compile(r"https?://|\bwww\.\w|\.(?:com|org|net)/|\\href\{|\\url\{", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ufeff]")
_NO_VALUE = re.compile(
    r"^\W*(?:n/?a|none|null|nan|see (?:the )?(?:solution|proof|above)|proof|proven?|the proof .*|qed|unknown|"
    r"undetermined|\?+|-+|todo)\W*$",
    re.IGNORECASE,
)
_GUESSABLE = re.compile(r"^\W*(?:\\text\w*\{)?\s*(?:yes|no|true|false)\b", re.IGNORECASE)
_FOREIGN = re.compile(r"[\u0400-\u04ff\u0600-\u06ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def empty(problem: Problem) -> str | None:
    """A question or an answer without a letter or a digit."""
    if not any(character.isalnum() for character in problem.question):
        return "empty question"
    return (
        None if any(character.isalnum() for character in problem.answer) or "\\" in problem.answer else "empty answer"
    )


def too_long(problem: Problem, max_question: int = 4000, max_answer: int = 400) -> str | None:
    """A question or answer over so many characters."""
    if len(problem.question) > max_question:
        return "question too long"
    return "answer too long" if len(problem.answer) > max_answer else None


def proof(problem: Problem) -> str | None:
    """Asks for a proof and for no value."""
    asked = _PROOF.search(problem.question)
    if asked is None or _ASKS_A_VALUE.search(problem.question[: asked.start()] + problem.question[asked.end() :]):
        return None
    return "asks for a proof"


def multi_part(problem: Problem) -> str | None:
    """Several tasks with markers: `(a) Find ... (b) Show ...`. Conditions that are only numbered stay."""
    return "several parts" if any(_in_order(parts, problem.question) for parts in _PARTS) else None


def multiple_choice(problem: Problem) -> str | None:
    """Options to choose from, or words that ask to choose."""
    listed = any(_in_order(choices, problem.question) for choices in _CHOICES)
    return "multiple choice" if listed or _CHOOSE.search(problem.question) else None


def drawing(problem: Problem) -> str | None:
    """Drawing code or an image: `[asy]`, TikZ, Markdown, HTML."""
    return "holds a drawing" if _DRAWING.search(problem.question) else None


def figure(problem: Problem) -> str | None:
    """Points to a figure that text does not carry."""
    return "refers to a figure" if _FIGURE.search(problem.question) else None


def link(problem: Problem) -> str | None:
    """A web address in the question."""
    return "holds a link" if _LINK.search(problem.question) else None


def encoding(problem: Problem) -> str | None:
    """Bytes that were not UTF-8 (replaced on reading), control characters, invisible marks."""
    both = problem.question + problem.answer
    if "\ufffd" in both:
        return "damaged encoding"
    return "control characters" if _CONTROL.search(both) else None


def no_value(problem: Problem) -> str | None:
    """An answer that states no value: `proof`, `N/A`, `see solution`."""
    return "the answer is no value" if _NO_VALUE.match(problem.answer) else None


def guessable(problem: Problem) -> str | None:
    """An answer that chance gives every other time: yes, no, true, false."""
    return "guessable answer" if _GUESSABLE.match(problem.answer) else None


def foreign_script(problem: Problem, max_share: float = 0.1) -> str | None:
    """Letters of scripts that the model is not asked to read, over a share of the question."""
    found = len(_FOREIGN.findall(problem.question))
    return "another script" if found > max_share * max(len(problem.question), 1) else None


def build_rule(name: str, params: dict[str, Any]) -> Callable[[Problem], str | None]:
    """The named rule with its parameters bound. Raises UserError for an unknown name or parameter."""
    rule = _find(name)
    try:
        rule(Problem("probe", "What is 1 + 1?", "2", "probe"), **params)
    except TypeError as error:
        raise UserError(f"rules: `{name}` refuses its params {params}: {error}") from None
    return lambda problem: rule(problem, **params)


def first_reason(problem: Problem, rules: Sequence[Callable[[Problem], str | None]]) -> str | None:
    """The reason of the first rule that applies."""
    return next((reason for rule in rules if (reason := rule(problem)) is not None), None)


def _in_order(patterns: Sequence[re.Pattern[str]], text: str) -> bool:
    """Whether the patterns match one behind the other. One pattern with gaps would be quadratic in the text."""
    place = 0
    for pattern in patterns:
        found = pattern.search(text, place)
        if found is None:
            return False
        place = found.end()
    return True


def _find(name: str) -> Rule:
    if name in RULES:
        return RULES[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(f"rules: no rule `{name}`; known: {', '.join(RULES)}, or `module:function`")
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"rules: can't import `{name}`: {error}") from None


RULES: dict[str, Rule] = {
    "encoding": encoding,
    "empty": empty,
    "too_long": too_long,
    "proof": proof,
    "multi_part": multi_part,
    "multiple_choice": multiple_choice,
    "drawing": drawing,
    "figure": figure,
    "link": link,
    "no_value": no_value,
    "guessable": guessable,
    "foreign_script": foreign_script,
}
