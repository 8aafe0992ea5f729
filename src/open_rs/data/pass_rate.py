"""How often a model solves each problem, with stated bounds, from as few samples as the bounds need.

A problem is sampled until its Jeffreys interval is narrow enough. Stopping on what was seen costs coverage. The rule
was chosen by simulation (`benchmarks/curate_pass_rate.py --simulate`): at 95 % nominal and a half-width of 0.15 the
bounds hold the true rate for 97 % of problems where rates are U-shaped, 95 % where uniform, 93 % where middling.
The next look comes where some outcome could end the problem, so no sample is drawn that could not have been needed.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from open_rs.grading import Grader, Pending
from open_rs.prompts import Prompt, opens_reasoning
from open_rs.rollout.engine import Engine, Request, Sampling
from open_rs.run_dir import disk_errors
from open_rs.stats import jeffreys
from open_rs.types import Problem, Rollout

WINDOW = 512  # problems under way at a time


@dataclass(frozen=True, slots=True)
class Sampler:
    """A loaded engine, the way to render a problem for it, and what its samples depend on."""

    engine: Engine
    render: Callable[[Problem], Prompt]
    sampling: Sampling
    identity: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """When to stop: at `half_width` of the interval at `confidence`, between `min_samples` and `max_samples`."""

    half_width: float = 0.15
    confidence: float = 0.95
    min_samples: int = 4
    max_samples: int = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """`num_correct` of `num_samples`, and the interval [lower, upper] for the true rate. `gradable` is False where the
    gold can't grade anybody: then nothing was counted."""

    num_samples: int
    num_correct: int
    lower: float
    upper: float
    num_tokens: int
    num_truncated: int
    gradable: bool = True

    @property
    def value(self) -> float:
        return self.num_correct / max(self.num_samples, 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded completion, as the store keeps it."""

    problem: str
    sample: int
    correct: bool | None
    num_tokens: int
    truncated: bool


class Store:
    """Graded samples of one model under one set of settings, appended line by line; a line cut off is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, dict[int, Sample]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            sample = Sample(**json.loads(line))
        except (ValueError, TypeError):
            return  # the last line of a run that was killed while it wrote
        self.held.setdefault(sample.problem, {})[sample.sample] = sample

    def add(self, samples: Iterable[Sample]) -> None:
        """Write the samples through to the disk and hold them."""
        samples = list(samples)
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.seek(0, 2) and not _ends_a_line(file):
                    file.write(b"\n")
                file.writelines(
                    json.dumps({name: getattr(sample, name) for name in Sample.__slots__}).encode() + b"\n"
                    for sample in samples
                )
        for sample in samples:
            self.held.setdefault(sample.problem, {})[sample.sample] = sample

    def counted(self, problem: str) -> list[Sample]:
        """Samples 0, 1, 2, ... up to the first that is missing."""
        held = self.held.get(problem, {})
        return [held[number] for number in range(len(held)) if all(earlier in held for earlier in range(number))]

    def missing(self, problem: str, below: int) -> tuple[int, ...]:
        """The numbers under `below` that were never sampled."""
        return tuple(number for number in range(below) if number not in self.held.get(problem, {}))


def problem_key(problem: Problem) -> str:
    """What samples of a problem are filed under: its text and answer, so that a renamed copy is not sampled again."""
    return hashlib.sha256(f"{problem.question}\0{problem.answer}".encode(errors="replace")).hexdigest()[:24]


def measure(
    problems: Iterable[Problem], sampler: Sampler, grader: Grader, wanted: Wanted, store: Store
) -> Iterator[tuple[Problem, Rate]]:
    """Sample each problem until its interval is narrow, in the order of the problems.

    Every graded sample is in the store before the next round begins, also where the engine fails, so a second call
    samples only what is missing and ends with the same rates.
    """
    problems = iter(problems)
    while window := list(islice(problems, WINDOW)):
        keys = {problem_key(problem): problem for problem in window}
        while requests := _requests(keys, sampler, wanted, store):
            _sample_round(requests, keys, sampler, grader, store)
        for problem in window:
            yield problem, rate_of(store.counted(problem_key(problem)), wanted)


def rate_of(samples: Sequence[Sample], wanted: Wanted) -> Rate:
    """The rate that the samples show and its bounds."""
    judged = [sample for sample in samples if sample.correct is not None]
    correct = sum(sample.correct is True for sample in judged)
    lower, upper = bounds(correct, len(judged), wanted.confidence)
    tokens, truncated = sum(sample.num_tokens for sample in samples), sum(sample.truncated for sample in samples)
    return Rate(len(judged), correct, lower, upper, tokens, truncated, gradable=len(judged) == len(samples))


@cache
def bounds(correct: int, samples: int, confidence: float) -> tuple[float, float]:
    """Jeffreys' interval for the true rate; [0, 1] without samples."""
    if samples == 0:
        return 0.0, 1.0
    interval = jeffreys(correct, samples, confidence)
    return interval.low, interval.high


@cache
def samples_to_ask(correct: int, samples: int, wanted: Wanted) -> int:
    """How many more samples to draw before looking again; 0 where the problem is finished.

    The fewest after which some outcome would be narrow enough. `samples_to_ask(0, 0, Wanted()) == 7`.
    """
    if samples >= wanted.max_samples or (samples >= wanted.min_samples and _is_narrow(correct, samples, wanted)):
        return 0
    for more in range(1, wanted.max_samples - samples):
        total = samples + more
        outcomes = (correct, correct + more)  # an interval is narrowest at the most extreme share
        if total >= wanted.min_samples and any(_is_narrow(outcome, total, wanted) for outcome in outcomes):
            return more
    return wanted.max_samples - samples


def _is_narrow(correct: int, samples: int, wanted: Wanted) -> bool:
    lower, upper = bounds(correct, samples, wanted.confidence)
    return (upper - lower) / 2 <= wanted.half_width


def _requests(keys: dict[str, Problem], sampler: Sampler, wanted: Wanted, store: Store) -> list[Request]:
    requests: list[Request] = []
    for key, problem in keys.items():
        counted = store.counted(key)
        if any(sample.correct is None for sample in counted):
            continue  # the gold grades nobody: more samples tell nothing
        correct = sum(sample.correct is True for sample in counted)
        more = samples_to_ask(correct, len(counted), wanted)
        missing = store.missing(key, len(counted) + more)
        if more and missing:
            prompt = sampler.render(problem)
            named = Prompt(key, prompt.messages, prompt.text, prompt.tokens)
            requests.append(Request(named, missing))
    return requests


def _sample_round(
    requests: Sequence[Request], keys: dict[str, Problem], sampler: Sampler, grader: Grader, store: Store
) -> None:
    """Draw, grade while the engine goes on, and store what is graded, also where the engine fails."""
    inside = {request.prompt.problem_id: opens_reasoning(request.prompt.text) for request in requests}
    waiting: deque[tuple[Rollout, Pending]] = deque()
    try:
        with sampler.engine.awake():
            for rollout in sampler.engine.generate(requests, sampler.sampling):
                gold = keys[rollout.problem_id].answer
                pending = grader.submit(gold, rollout.text, reasoning_open=inside[rollout.problem_id])
                waiting.append((rollout, pending))
                finished = [waiting.popleft() for _ in range(len(waiting)) if waiting[0][1].done()]
                if finished:
                    store.add(_graded(*one) for one in finished)
    finally:
        store.add(_graded(*one) for one in waiting)


def _graded(rollout: Rollout, pending: Pending) -> Sample:
    truncated = rollout.finish == "length"
    return Sample(rollout.problem_id, rollout.sample, pending.result().correct, len(rollout.tokens), truncated)


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"
