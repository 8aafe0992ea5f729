"""How many more steps fit into a budget: pure planning from what the last steps cost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from open_rs.config.schema import BudgetConfig

LUMPS = ("validate", "save")  # phases that fall due every so many steps, and once more at the end
MEMORY_STEPS = 6  # the planner looks at the last few steps, so that it follows a change of throughput at once
ALARM_STEPS = 2  # so many slow steps in a row are taken for a slower machine
STEP_HASTE = 1.15  # a step may take this much longer than the longest of the last few
CLOSING_HASTE = 1.15  # the last evaluation may take this much longer than the first, scaled to the answers of now
AFTERWARDS_SECONDS = 2.5  # from the last evaluation to the end of the process: summary and report


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limits of a budget; None where there is none. `reserve_seconds` are kept for the end."""

    seconds: float | None = None
    tokens: int | None = None
    usd_per_second: float | None = None
    reserve_seconds: float = 0.0

    @classmethod
    def of(cls, config: BudgetConfig) -> Limits:
        """Dollars become seconds through the price of all GPUs: $42 at $0.4375 on 4 GPUs are 24 hours."""
        price = None if config.gpu_hour_usd is None else config.gpu_hour_usd * config.gpus / 3600
        times = [] if config.hours is None else [config.hours * 3600]
        if config.usd is not None and price is not None:
            times.append(config.usd / price)
        seconds = min(times, default=None)
        return cls(seconds, config.tokens, price, (seconds or 0.0) * config.reserve_for_evaluation)

    @property
    def bind(self) -> bool:
        return self.seconds is not None or self.tokens is not None


@dataclass(frozen=True, slots=True)
class Pace:
    """What a step costs lately (usual, and at the worst), and the seconds that the end of the run will take.

    `bare_closing_seconds` has no margin; only a step that brings an unfinished schedule to its end may count on it.
    """

    step_seconds: float
    longest_seconds: float
    step_tokens: float
    likely_tokens: float
    most_tokens: float
    closing_seconds: float
    bare_closing_seconds: float


def steps_that_fit(limits: Limits, pace: Pace, seconds: float, tokens: int) -> float:
    """How many more steps fit when `seconds` and `tokens` are spent: a whole number, or infinity without limits.

    0 where the next step might not end inside; 1 where the one after it might not, so that the last step knows itself.
    """
    room_seconds = math.inf if limits.seconds is None else limits.seconds - seconds - pace.closing_seconds
    room_tokens = math.inf if limits.tokens is None else limits.tokens - tokens
    return min(
        _fit(room_seconds, pace.step_seconds, pace.longest_seconds, pace.longest_seconds),
        _fit(room_tokens, pace.step_tokens, pace.likely_tokens, pace.most_tokens),
    )


def may_finish(limits: Limits, pace: Pace, seconds: float, tokens: int) -> bool:
    """Whether one step fits that the margins would forbid, to bring an unfinished schedule to its end."""
    enough_seconds = (
        limits.seconds is None or limits.seconds - seconds >= pace.longest_seconds + pace.bare_closing_seconds
    )
    return enough_seconds and (limits.tokens is None or limits.tokens - tokens >= pace.most_tokens)


def _fit(room: float, usual: float, likely: float, most: float) -> float:
    if room < most:
        return 0
    if room < most + likely:
        return 1
    return max(2, math.floor(1 + (room - most) / usual)) if usual > 0 and math.isfinite(room) else math.inf


@dataclass
class Pacer:
    """Watches steps and says what the next ones will cost."""

    reserve_seconds: float
    most_tokens: int | None = None
    expected_step_seconds: float | None = None
    steps_seen: int = 0
    lumps: dict[str, float] = field(default_factory=dict)  # the last one of each kind
    lump_seconds: float = 0.0
    _seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MEMORY_STEPS))
    _tokens: deque[int] = field(default_factory=lambda: deque(maxlen=MEMORY_STEPS))
    _fastest: float = math.inf  # seconds a token, over a full memory
    _first_tokens: float = 0.0

    def watch(self, elapsed: float, seconds: Mapping[str, float], tokens: int) -> None:
        """Learn from one step."""
        lump_seconds = self.watch_lumps(seconds)
        self.steps_seen += 1
        self._seconds.append(max(0.0, elapsed - lump_seconds))
        self._tokens.append(tokens)
        if self.steps_seen <= ALARM_STEPS:
            self._first_tokens = _mean(self._tokens)
        if len(self._seconds) >= MEMORY_STEPS // 2:
            self._fastest = min(self._fastest, self._seconds_per_token(MEMORY_STEPS))

    def watch_lumps(self, seconds: Mapping[str, float]) -> float:
        """Learn from what fell due in or after a step; returns the seconds of it."""
        lumps = {phase: seconds[phase] for phase in LUMPS if phase in seconds}
        self.lumps |= lumps
        self.lump_seconds += sum(lumps.values())
        return sum(lumps.values())

    def pace(self, evaluation_seconds: float) -> Pace | None:
        """What steps cost now; None where nothing is known yet."""
        lumps, slowdown = sum(self.lumps.values()) + AFTERWARDS_SECONDS, self._slowdown()
        evaluation_seconds *= self._growth()
        closing = max(self.reserve_seconds, evaluation_seconds * max(CLOSING_HASTE, 1.1 * slowdown) + lumps)
        bare = max(self.reserve_seconds, evaluation_seconds * slowdown + lumps)
        if not self._seconds:
            expected = self.expected_step_seconds
            most = self.most_tokens or 0
            return None if expected is None else Pace(expected, STEP_HASTE * expected, most, most, most, closing, bare)
        recent = _mean(list(self._seconds)[-ALARM_STEPS:])
        return Pace(
            step_seconds=max(_mean(self._seconds), recent) + self.lump_seconds / self.steps_seen,
            longest_seconds=STEP_HASTE * max(self._seconds),
            step_tokens=_mean(self._tokens),
            likely_tokens=STEP_HASTE * max(self._tokens),
            most_tokens=self.most_tokens or STEP_HASTE * max(self._tokens),
            closing_seconds=closing,
            bare_closing_seconds=bare,
        )

    def _growth(self) -> float:
        """How much longer answers are now than in the first steps; the last evaluation will sample as many of them."""
        return max(1.0, _mean(list(self._tokens)[-ALARM_STEPS:]) / self._first_tokens) if self._first_tokens else 1.0

    def _seconds_per_token(self, steps: int) -> float:
        seconds, tokens = list(self._seconds)[-steps:], list(self._tokens)[-steps:]
        return sum(seconds) / (sum(tokens) or len(seconds))

    def _slowdown(self) -> float:
        return max(1.0, self._seconds_per_token(ALARM_STEPS) / self._fastest) if math.isfinite(self._fastest) else 1.0


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
