"""What every rollout engine promises: four methods, and the requests and settings that they take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from open_rs.prompts import Prompt
from open_rs.types import Rollout


@dataclass(frozen=True, slots=True)
class Request:
    """Some samples of one prompt. `samples` are their numbers, so that 8 samples can be extended to 64 later."""

    prompt: Prompt
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. The noise of one token is a function of (seed, step, problem id, sample, position) only.

    `temperature` 0 is greedy. `max_tokens` counts the stop token. `top_k` 0 is off.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    step: int = 0


class Engine(Protocol):
    """A sampler. `generate` yields each rollout as it finishes, in any order, so that grading can overlap it."""

    def load(self, model: Any, version: int) -> None:
        """Sample from `model` (an `open_rs.models.CausalLM`) from now on; `version` marks the rollouts."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Rollout]:
        """Yield `sum(len(r.samples) for r in requests)` rollouts. Closing the iterator early frees its slots."""
        ...

    def awake(self) -> AbstractContextManager[None]:
        """Hold the device memory that sampling needs inside the block, and as little as possible outside."""
        ...

    def close(self) -> None:
        """Free everything. Calling it twice is harmless."""
        ...
