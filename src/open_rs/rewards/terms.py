r"""Owns the reward terms: each is a function of a group that gives every completion a number, or None.

None means "this problem can't be scored": its gold is at fault (`Verdict.correct is None`). A term that reads
verdicts gives None there; one that reads only the text scores on. A group in which one term is None has no total and
teaches nothing. Lengths are tokens, the stop token included, unless a parameter says characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from open_rs.rewards.language import share_of_text_in
from open_rs.types import Group, Rollout, UserError, Verdict

_STEP = re.compile(r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,", re.MULTILINE)
_TAGS = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def accuracy(group: Group) -> list[float | None]:
    """1 for the gold's answer, 0 otherwise; None where the problem can't be scored. Range 0..1. Source: DeepSeek-R1."""
    return [None if verdict.correct is None else float(verdict.correct) for verdict in group.verdicts]


def format_(group: Group) -> list[float | None]:
    r"""1 where the text holds `"\n</think>\n"` exactly once. Range 0..1; unscorable problems score on. Source: the
    release.

    R1's chat template ends the prompt with `<think>`, so that a completion never holds the opening tag; a reward that
    asks for it stays at 0 for ever.
    """
    return [float(rollout.text.count("\n</think>\n") == 1) for rollout in group.rollouts]


def cosine(
    group: Group,
    *,
    max_length: int = 3584,
    length_unit: str = "tokens",
    clamp: bool = True,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    min_value_wrong: float = -0.5,
    max_value_wrong: float = 0.0,
) -> list[float | None]:
    """Half a cosine over the length: a right answer falls from its maximum to its minimum, a wrong one rises.

    Range: between the four values; None where the problem can't be scored. Source: Demystifying Long CoT
    (2502.03373), with the directions of the paper's text: long wrong answers are penalised less.
    `length_unit="characters", clamp=False, max_length=1000, min_value_wrong=0.0, max_value_wrong=-0.5` is the
    release: wrong answers then fall, and everything repeats every 2,000 characters.
    """
    rewards: list[float | None] = []
    for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True):
        if verdict.correct is None:
            rewards.append(None)
            continue
        share = _length(rollout, length_unit) / max_length
        start, end = (max_value_correct, min_value_correct) if verdict.correct else (min_value_wrong, max_value_wrong)
        rewards.append(end + 0.5 * (start - end) * (1 + math.cos(math.pi * (min(share, 1.0) if clamp else share))))
    return rewards


def tag_count(group: Group, *, tags: Sequence[str] = _TAGS) -> list[float | None]:
    """The share of `tags` that the text holds exactly once. Range 0..1; unscorable problems score on. Source: open-r1.

    With a template that opens `<think>` itself the first tag can't appear: pass the other three.
    """
    return [sum(rollout.text.count(tag) == 1 for tag in tags) / len(tags) for rollout in group.rollouts]


def reasoning_steps(group: Group, *, num_steps: int = 3) -> list[float | None]:
    """Numbered steps, bullets and "First," words, up to `num_steps`. Range 0..1; unscorable problems score on. Source:
    open-r1.
    """
    return [min(1.0, len(_STEP.findall(rollout.text)) / num_steps) for rollout in group.rollouts]


def repetition_penalty(group: Group, *, ngram_size: int = 3, max_penalty: float = -1.0) -> list[float | None]:
    """`max_penalty` times the share of repeated word n-grams. Range max_penalty..0; unscorable problems score on.
    Source: 2502.03373.
    """
    return [max_penalty * _repeated_share(rollout.text, ngram_size) for rollout in group.rollouts]


def length(group: Group) -> list[float | None]:
    """Shorter than the group's others is better, among right answers. Range -0.5..0.5. Source: Kimi k1.5 (2501.12599,
    section 2.3.3).

    With `x = 0.5 - (len - shortest) / (longest - shortest)`: a right answer earns x, a wrong one min(0, x), all 0
    where the lengths are equal; None where the problem can't be scored.
    """
    lengths = [len(rollout.tokens) for rollout in group.rollouts]
    shortest, longest = min(lengths), max(lengths)
    return [_kimi(verdict, tokens, shortest, longest) for verdict, tokens in zip(group.verdicts, lengths, strict=True)]


def soft_overlong(group: Group, *, max_length: int = 3584, buffer: int = 512) -> list[float | None]:
    """0 up to `max_length - buffer` tokens, then a line down to -1 at `max_length`. Range -1..0; unscorable problems
    score on.

    Source: DAPO (2503.14476, equation 13). `max_length` is the completion limit of the run.
    """
    free = max_length - buffer
    return [-min(1.0, max(0.0, (len(rollout.tokens) - free) / buffer)) for rollout in group.rollouts]


def language(group: Group, *, language: str = "en") -> list[float | None]:
    """The share of the text that is in `language` (ISO 639-1). Range 0..1; unscorable problems score on. Source:
    DeepSeek-R1, 2.3.2.

    Words count, and each Chinese or Japanese character as a word; formulas, digits, symbols and code don't.
    """
    return [share_of_text_in(rollout.text, language) for rollout in group.rollouts]


def _length(rollout: Rollout, unit: str) -> int:
    if unit not in _LENGTHS:
        raise UserError(f"length_unit: `{unit}` is not one of {', '.join(_LENGTHS)}")
    return _LENGTHS[unit](rollout)


def _repeated_share(text: str, ngram_size: int) -> float:
    words = text.lower().split()
    ngrams = list(zip(*(words[start:] for start in range(ngram_size)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _kimi(verdict: Verdict, tokens: int, shortest: int, longest: int) -> float | None:
    if verdict.correct is None:
        return None
    if longest == shortest:
        return 0.0
    reward = 0.5 - (tokens - shortest) / (longest - shortest)
    return reward if verdict.correct else min(0.0, reward)


_LENGTHS = {"tokens": lambda rollout: len(rollout.tokens), "characters": lambda rollout: len(rollout.text)}
TERMS = {
    "accuracy": accuracy,
    "format": format_,
    "cosine": cosine,
    "tag_count": tag_count,
    "reasoning_steps": reasoning_steps,
    "repetition_penalty": repetition_penalty,
    "length": length,
    "soft_overlong": soft_overlong,
    "language": language,
}
REFUSED = {
    "code": "it runs what the model wrote, which needs a sandbox, and Open-RS has none",
    "code_format": "it serves `code`, which needs a sandbox, and Open-RS has none",
}
