"""What a run may spend and what it has spent: the question before every step, and a ledger that outlasts a resume.

Before every step the loop asks whether to go on and how far the run will be when that step ends; after it the loop
reports what the step took. Wall time counts, so that loading, evaluation and saving are paid for as well. With several
processes the main one asks and reports; the others follow its answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from open_rs.config.schema import BudgetConfig, TrainConfig
from open_rs.run_dir import RunDir
from open_rs.train.pace import Limits, Pace, Pacer, may_finish, steps_that_fit
from open_rs.types import UserError

ROWS = "ledger.jsonl"
TOTALS = "ledger.json"
SPARE_STEPS = 2  # so many of the last steps may be lost to slowness without harm to the schedule, ...
SPARE_SHARE = 0.03  # ... or this share of the steps so far, if that is more
STEPS_BEFORE_SPARING = 5  # one is spared after so many steps, two after twice as many: the shortest runs need all


@dataclass(frozen=True, slots=True)
class Spending:
    """Spent so far, and what the whole run is expected to come to. Dollars are None without a price."""

    step: int
    last_step: int
    seconds: float
    projected_seconds: float
    tokens_sampled: int
    usd: float | None
    projected_usd: float | None
    limits: Limits

    def __str__(self) -> str:
        """One line for the terminal: `0:42 of 1:00, $0.02 of $0.03, step 31 of 45`."""
        parts = [f"{_clock(self.seconds)} of {_clock(self.projected_seconds)}"]
        if self.limits.seconds is not None:
            parts[0] += f" (limit {_clock(self.limits.seconds)})"
        if self.usd is not None and self.projected_usd is not None:
            parts.append(f"${self.usd:.2f} of ${self.projected_usd:.2f}")
        if self.limits.tokens is not None:
            parts.append(f"{self.tokens_sampled:,} of {self.limits.tokens:,} tokens")
        return ", ".join([*parts, f"step {self.step} of {self.last_step}"])


def planned_steps(train: TrainConfig, num_problems: int) -> int:
    """Steps before any budget: `max_steps`, or as many as `num_train_epochs` passes over the problems take."""
    if train.num_train_epochs is None:
        return train.max_steps
    return max(1, math.ceil(train.num_train_epochs * num_problems / train.prompts_per_step))


@dataclass
class Ledger:
    """Totals of all rows: wall seconds, seconds by phase, tokens by kind; and the progress at the end of each step."""

    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    progress: dict[int, float] = field(default_factory=dict)
    evaluation_seconds: float = 0.0  # of the evaluation before the first step; the last one will be like it

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row of `ledger.jsonl`."""
        if not self.progress and row["step"] is None:
            self.evaluation_seconds += row["seconds"].get("evaluate", 0.0)
        self.seconds += row["elapsed"]
        for phase, seconds in row["seconds"].items():
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds
        for kind, number in row["tokens"].items():
            self.tokens[kind] = self.tokens.get(kind, 0) + number
        if row["step"] is not None:
            self.progress[row["step"]] = row["progress"]


class Budget:
    """The limits, the plan and the ledger of one run.

    ```
    budget = Budget.open(recipe.budget, planned_steps(recipe.train, len(problems)), run)
    while budget.goes_on(step):
        rate = schedule(budget.progress(step))
        ...
        budget.charge({"generate": 1.2, "update": 0.4}, {"sampled": 9000, "trained": 7000}, step)
    ```
    `last_step` is the number of steps as planned now.
    """

    def __init__(self, limits: Limits, max_steps: int, stretch: bool, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.max_steps = max_steps
        self.last_step = max_steps
        self.ledger = Ledger()
        self.pacer = Pacer(limits.reserve_seconds)
        self._stretch = stretch and limits.bind
        self._clock = clock
        self._charged_until = clock()
        self._run: RunDir | None = None
        self._session = 1
        self._asked: tuple[int, float] | None = None  # the step that runs now, and its progress

    @classmethod
    def open(
        cls,
        config: BudgetConfig,
        max_steps: int,
        run: RunDir | None = None,
        *,
        started: float | None = None,
        most_tokens_per_step: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Budget:
        """Open the budget of a run, with what earlier sessions of it spent.

        `started` is the moment on `clock` from which this session's time counts; absent: now. `most_tokens_per_step` is
        what a step can sample at most (prompts x samples x limit), so that a limit in tokens is never passed.
        """
        budget = cls(Limits.of(config), max_steps, config.stretch, clock)
        budget._charged_until = clock() if started is None else started
        budget._run = run
        budget.pacer.most_tokens = most_tokens_per_step
        for row in run.read_rows(ROWS) if run is not None else ():
            budget._learn(row)
            budget._session = row["session"] + 1
        return budget

    def expect(self, step_seconds: float) -> None:
        """Tell what a step will take before one is measured, so that a budget too small for one is refused at once."""
        self.pacer.expected_step_seconds = step_seconds

    def goes_on(self, step: int) -> bool:
        """Whether step `step`, counted from 0, is to run. Raises UserError where not even the first one fits."""
        if not self.limits.bind:
            return step < self.max_steps
        fits = self._steps_that_fit(step)
        if fits < 1 and step == 0:
            raise UserError(self._too_small())
        return fits >= 1

    def progress(self, step: int) -> float:
        """The share of the run that will be done when `step` ends: in (0, 1], and 1 for the step that will be the last.

        What is left of the way is divided evenly over the steps that still fit, so a new plan bends the schedule from
        here on and never makes it jump. Under a limit a few steps are spared: should the last ones take too long to
        fit, the schedule has ended all the same, and where they fit they run at its end.
        """
        if not self.limits.bind:
            return (step + 1) / self.max_steps
        if self._asked is None or self._asked[0] != step:
            before = self.ledger.progress.get(step - 1, 0.0)
            remaining = max(1, int(self._steps_that_fit(step)))
            self.last_step = step + remaining
            spared = 0 if self.last_step == self.max_steps else _spared(step)
            self._asked = (step, before + (1.0 - before) / max(1, remaining - spared))
        return self._asked[1]

    def charge(
        self, seconds: Mapping[str, float], tokens: Mapping[str, int] | None = None, step: int | None = None
    ) -> Spending:
        """Write down what happened since the last charge, and say where the run stands.

        `seconds` by phase (load, evaluate, generate, grade, update, validate, save); wall time that no phase explains
        is spent all the same. `tokens` by kind (sampled, trained, graded). `step` is given once a step, at its end.
        """
        row = {
            "session": self._session,
            "step": step,
            "elapsed": self._clock() - self._charged_until,
            "seconds": dict(seconds),
            "tokens": dict(tokens or {}),
            "progress": None if step is None else self.progress(step),
        }
        self._charged_until += row["elapsed"]
        self._learn(row)
        if self._run is not None:
            self._run.append(ROWS, row)
            self._run.write_json(TOTALS, self.totals())
        return self.spending(0 if step is None else step + 1)

    def seconds_left(self) -> float:
        """Seconds until the limit, infinite without one; what the last evaluation may take."""
        return math.inf if self.limits.seconds is None else self.limits.seconds - self._spent_seconds()

    def spending(self, step: int) -> Spending:
        """Spent and projected after `step` steps."""
        spent, pace = self._spent_seconds(), self._pace()
        steps = max(0, self.last_step - step)
        projected = spent + (0.0 if pace is None else steps * pace.step_seconds + pace.closing_seconds)
        if self.limits.seconds is not None:
            projected = min(projected, max(spent, self.limits.seconds))
        return Spending(
            step=step,
            last_step=self.last_step,
            seconds=spent,
            projected_seconds=projected,
            tokens_sampled=self.ledger.tokens.get("sampled", 0),
            usd=self._usd(spent),
            projected_usd=self._usd(projected),
            limits=self.limits,
        )

    def totals(self) -> dict[str, Any]:
        """The whole ledger: seconds and dollars, by phase too, tokens by kind, and steps done."""
        ledger = self.ledger
        return {
            "seconds": ledger.seconds,
            "usd": self._usd(ledger.seconds),
            "phases": {
                phase: {"seconds": seconds, "usd": self._usd(seconds)}
                for phase, seconds in sorted(ledger.phases.items())
            },
            "unexplained_seconds": ledger.seconds - sum(ledger.phases.values()),
            "tokens": dict(sorted(ledger.tokens.items())),
            "steps": len(ledger.progress),
            "progress": ledger.progress[max(ledger.progress)] if ledger.progress else 0.0,
            "sessions": self._session,
            "limit_seconds": self.limits.seconds,
            "limit_tokens": self.limits.tokens,
            "usd_per_hour": None if self.limits.usd_per_second is None else self.limits.usd_per_second * 3600,
        }

    def _learn(self, row: Mapping[str, Any]) -> None:
        self.ledger.add(row)
        if row["step"] is not None:
            self.pacer.watch(row["elapsed"], row["seconds"], row["tokens"].get("sampled", 0))
        else:
            self.pacer.watch_lumps(row["seconds"])

    def _steps_that_fit(self, step: int) -> float:
        planned = float(self.max_steps - step)
        pace = self._pace()
        if pace is None:
            enough = self.seconds_left() > 0 and (self.limits.tokens or math.inf) >= (self.pacer.most_tokens or 0)
            return max(1.0, planned) if enough else 0.0
        spent = (self._spent_seconds(), self.ledger.tokens.get("sampled", 0))
        fits = steps_that_fit(self.limits, pace, *spent)
        unfinished = self.ledger.progress.get(step - 1, 0.0) < 1.0
        if fits == 0 and unfinished and may_finish(self.limits, pace, *spent):
            fits = 1
        return fits if self._stretch else min(fits, planned)

    def _pace(self) -> Pace | None:
        return self.pacer.pace(self.ledger.evaluation_seconds)

    def _spent_seconds(self) -> float:
        return self.ledger.seconds + self._clock() - self._charged_until

    def _usd(self, seconds: float) -> float | None:
        return None if self.limits.usd_per_second is None else seconds * self.limits.usd_per_second

    def _too_small(self) -> str:
        most = self.pacer.most_tokens or 0
        if self.limits.tokens is not None and self.limits.tokens < most:
            return (
                f"budget.tokens: {self.limits.tokens:,} are too few for one step, which may sample {most:,}; raise it"
            )
        assert self.limits.seconds is not None
        spent, pace = self._spent_seconds(), self._pace()
        more = (
            ""
            if pace is None
            else f", a step and the last evaluation take {pace.longest_seconds + pace.closing_seconds:.0f}"
        )
        which = "budget.hours" if self.limits.usd_per_second is None else "budget.usd and budget.hours"
        seconds = f"{self.limits.seconds:.0f} seconds are too few for one step"
        return f"{which}: {seconds}: {spent:.0f} went before the first{more}; raise the limit"


def _spared(step: int) -> int:
    """How many steps before the expected end the schedule shall end, when `step` steps are done."""
    return min(max(SPARE_STEPS, math.ceil(SPARE_SHARE * step)), step // STEPS_BEFORE_SPARING)


def process_started() -> float:
    """When this process began, as `time.time()` counts: the imports are part of what a run takes."""
    import psutil

    return psutil.Process().create_time()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
