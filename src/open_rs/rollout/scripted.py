"""An engine that reads its completions from a script: for testing rewards, graders and loops without a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from open_rs.prompts import Prompt
from open_rs.rollout.engine import Request, Sampling
from open_rs.types import Rollout, UserError

Script = Mapping[str, Sequence[str]] | Callable[[Prompt, int], str]


class ScriptedEngine:
    """Answer sample `i` of a problem with the `i`-th text of its list, starting over at the end of the list.

    `script` maps a problem id to texts, or is a function of (prompt, sample number). With a `tokenizer` the texts are
    tokenised and end with its stop token; without one every character is a token (its code point) and 0 stops. A
    text longer than `max_tokens` is cut and finishes by "length". Each token's log-probability is `logprob`, or absent.

    `ScriptedEngine({"two-plus-two": ["4", "5"]})` answers samples 0, 1, 2 with "4", "5", "4".
    """

    def __init__(self, script: Script, tokenizer: Any | None = None, logprob: float | None = -1.0):
        self.script = script
        self.tokenizer = tokenizer
        self.logprob = logprob
        self.version = 0

    def load(self, model: Any, version: int) -> None:
        """Take note of the version; a script needs no model."""
        self.version = version

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Rollout]:
        """Yield the scripted rollouts, in order. Raises UserError for a problem that the script does not know."""
        for request in requests:
            for number in request.samples:
                yield self._rollout(request.prompt, number, sampling.max_tokens)

    def awake(self) -> AbstractContextManager[None]:
        """A script holds no device memory."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to free."""

    def _rollout(self, prompt: Prompt, number: int, max_tokens: int) -> Rollout:
        text = self._text(prompt, number)
        tokens = self._encode(text)
        stopped = len(tokens) <= max_tokens
        tokens = tokens[:max_tokens]
        return Rollout(
            problem_id=prompt.problem_id,
            sample=number,
            prompt_tokens=prompt.tokens,
            tokens=tuple(tokens),
            logprobs=None if self.logprob is None else (self.logprob,) * len(tokens),
            text=text if stopped else self._decode(tokens),
            finish="stop" if stopped else "length",
            policy_version=self.version,
        )

    def _text(self, prompt: Prompt, number: int) -> str:
        if callable(self.script):
            return self.script(prompt, number)
        texts = self.script.get(prompt.problem_id)
        if not texts:
            raise UserError(f"scripted engine: no text for problem `{prompt.problem_id}`; add it to the script")
        return texts[number % len(texts)]

    def _encode(self, text: str) -> list[int]:
        if self.tokenizer is None:
            return [*map(ord, text), 0]
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def _decode(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens)) if self.tokenizer is None else str(self.tokenizer.decode(tokens))
