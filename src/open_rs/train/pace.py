"""How many more steps fit into a budget: pure planning from what the last steps cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from open_rs.config.schema import BudgetConfig

LUMPS = ("validate", "save")  # phases that fall due every so many steps, and once more at the end
MEMORY = (6, 10.0)  # steps and seconds, both at least, that the planner looks back, so that it follows a change at once
ALARM = (2, 3.0)  # so much slowness in a row is taken for a slower machine; two steps of 0.3 s would be noise
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
    _steps: list[tuple[float, int]] = field(default_factory=list)  # (seconds, tokens) of each step
    _fastest: float = math.inf  # seconds a token, over a full memory
    _first_tokens: float = 0.0

    def watch(self, elapsed: float, seconds: Mapping[str, float], tokens: int) -> None:
        """Learn from one step."""
        lump_seconds = self.watch_lumps(seconds)
        self.steps_seen += 1
        self._steps.append((max(0.0, elapsed - lump_seconds), tokens))
        if self.steps_seen <= ALARM[0]:
            self._first_tokens = _mean(tokens for _, tokens in self._steps)
        if self.steps_seen >= MEMORY[0] // 2:
            self._fastest = min(self._fastest, _seconds_per_token(self._last(*MEMORY)))

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
        if not self._steps:
            expected = self.expected_step_seconds
            most = self.most_tokens or 0
            return None if expected is None else Pace(expected, STEP_HASTE * expected, most, most, most, closing, bare)
        seconds, tokens = zip(*self._last(*MEMORY), strict=True)
        recent = _mean(seconds for seconds, _ in self._last(*ALARM))
        return Pace(
            step_seconds=max(_mean(seconds), recent) + self.lump_seconds / self.steps_seen,
            longest_seconds=STEP_HASTE * max(seconds),
            step_tokens=_mean(tokens),
            likely_tokens=STEP_HASTE * max(tokens),
            most_tokens=self.most_tokens or STEP_HASTE * max(tokens),
            closing_seconds=closing,
            bare_closing_seconds=bare,
        )

    def _last(self, steps: int, seconds: float) -> list[tuple[float, int]]:
        """The last steps: at least so many, and at least so many seconds of them."""
        count, passed = 0, 0.0
        while count < len(self._steps) and (count < steps or passed < seconds):
            count += 1
            passed += self._steps[-count][0]
        return self._steps[-count:]

    def _growth(self) -> float:
        """How much longer answers are now than in the first steps; the last evaluation will sample as many of them."""
        lately = _mean(tokens for _, tokens in self._last(*ALARM)) if self._steps else 0.0
        return max(1.0, lately / self._first_tokens) if self._first_tokens else 1.0

    def _slowdown(self) -> float:
        if not math.isfinite(self._fastest):
            return 1.0
        return max(1.0, _seconds_per_token(self._last(*ALARM)) / self._fastest)


def _seconds_per_token(steps: Sequence[tuple[float, int]]) -> float:
    return sum(seconds for seconds, _ in steps) / (sum(tokens for _, tokens in steps) or len(steps))


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
