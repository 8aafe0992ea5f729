"""Wall-clock seconds of a step, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """`with phases("sample"):` adds the block's seconds to that phase; a phase inside another is taken out of it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed

    def row(self, tokens: float) -> dict[str, float]:
        """Metrics of the step: seconds by phase, their sum, and sampled tokens a second of the whole step."""
        total = sum(self.seconds.values())
        phases = {f"seconds_{name}": seconds for name, seconds in self.seconds.items()}
        return {**phases, "seconds": total, "tokens_per_second": tokens / max(total, 1e-9)}
