"""Alarms over a running training: go on, roll back to the last good checkpoint, or stop before more money is lost.

The paper's runs came apart after 150 to 200 steps and nothing said so; each limit here is one of the signs it reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from open_rs.config.schema import GuardConfig

Action = Literal["go on", "warn", "roll back", "stop"]
ROLLBACK_LEARNING_RATE = 0.5  # each roll-back halves the rate; the same rate would come apart in the same place
SMOOTHING = 0.8


@dataclass(frozen=True, slots=True)
class Alarm:
    """What to do now, and the sentence that says why; empty where all is well."""

    action: Action
    why: str = ""


@dataclass
class Guard:
    """Counts how long each limit has been passed. Its state is saved with every checkpoint."""

    config: GuardConfig
    strikes: dict[str, int] = field(default_factory=dict)
    accuracy: float | None = None
    best_accuracy: float = 0.0
    num_rollbacks: int = 0

    @property
    def learning_rate_factor(self) -> float:
        """What the schedule's rate is multiplied by after the roll-backs so far."""
        return ROLLBACK_LEARNING_RATE**self.num_rollbacks

    def watch(self, step: int, row: Mapping[str, Any]) -> Alarm:
        """Judge one step's metrics. What is not finite acts at once, any other limit after `patience` steps."""
        broken = [key for key in ("loss", "grad_norm") if not math.isfinite(row.get(key, 0.0))]
        if broken:
            return self._act(f"step {step}: {' and '.join(broken)} not finite")
        self._follow_accuracy(row)
        for key, value, limit in self._watched(row):
            passed = value is not None and limit is not None and value > limit
            self.strikes[key] = self.strikes.get(key, 0) + 1 if passed else 0
            if self.strikes[key] >= self.config.patience:
                self.strikes[key] = 0
                return self._act(f"step {step}: {key} {value:.4g} above {limit:g} for {self.config.patience} steps")
        return Alarm("go on")

    def state(self) -> dict[str, Any]:
        """Everything but the settings, for a checkpoint."""
        return {key: value for key, value in asdict(self).items() if key != "config"}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the state of a checkpoint; the count of roll-backs never goes back."""
        num_rollbacks = max(self.num_rollbacks, state["num_rollbacks"])
        for key, value in state.items():
            setattr(self, key, value)
        self.num_rollbacks = num_rollbacks

    def _watched(self, row: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
        config = self.config
        drop = None if self.accuracy is None else self.best_accuracy - self.accuracy
        return [
            ("sampler_kl", row.get("sampler_kl"), config.max_sampler_kl),
            ("kl", row.get("kl"), config.max_kl),
            ("grad_norm", row.get("grad_norm"), config.max_grad_norm),
            ("truncated", row.get("truncated"), config.max_truncated),
            ("accuracy below its best", drop, config.accuracy_drop),
        ]

    def _follow_accuracy(self, row: Mapping[str, Any]) -> None:
        now = row.get("accuracy")
        if now is None:
            return
        smoothed = now if self.accuracy is None else SMOOTHING * self.accuracy + (1 - SMOOTHING) * now
        self.accuracy, self.best_accuracy = smoothed, max(self.best_accuracy, smoothed)

    def _act(self, why: str) -> Alarm:
        if self.config.action == "warn":
            return Alarm("warn", why)
        if self.config.action == "rollback" and self.num_rollbacks < self.config.max_rollbacks:
            self.num_rollbacks += 1
            return Alarm("roll back", why)
        return Alarm("stop", why)
