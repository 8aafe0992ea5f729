"""Asking a language model whether a question is usable: the prompts, versioned, and how a reply is read.

The paper used Qwen2.5-7B-Instruct to drop noisy and multi-part questions and published neither prompt nor script, so
these words are ours. A prompt never changes under its name: a better one gets the next version.
"""

from __future__ import annotations

import re
from pathlib import Path

from open_rs.types import UserError

_FIRST_WORD = re.compile(r"[^A-Za-z]*([A-Za-z]+)")


def read_prompt(name: str) -> str:
    """The text of a named prompt or of a file. Raises UserError for an unknown name, or no `{question}` in the text."""
    if name in PROMPTS:
        return PROMPTS[name]
    path = Path(name)
    if not path.is_file():
        raise UserError(f"judge.prompt: `{name}` is neither a file nor one of {', '.join(PROMPTS)}")
    text = path.read_text(encoding="utf-8")
    if "{question}" not in text:
        raise UserError(f"judge.prompt: no `{{question}}` in {path}, so the model would never see the problem")
    return text


def read_reply(reply: str) -> bool | None:
    """Whether the model would drop the question: True for yes, False for no, None for any other first word."""
    found = _FIRST_WORD.match(reply.rpartition("</think>")[2])
    return {"yes": True, "no": False}.get(found[1].lower()) if found else None


PROMPTS = {
    "noisy-or-multi-part-v1": (
        "You check mathematics problems before they are used to train a model. A usable problem is one "
        "self-contained question in English with exactly one final answer.\n\n"
        "Problem:\n{question}\n\n"
        "Does any of these hold? It asks for several separate answers; it needs a figure, table or text that is not "
        "given; it is garbled, cut off or not a question; it asks only for a proof or an explanation; it asks to "
        "choose among options.\n\nReply with one word: Yes or No."
    ),
}
