"""Owns the grader that rewards, evaluation and curation share: exact where possible, in killable workers where not."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Generator
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from open_rs.grading.compare import Undecided, equal, exact_leaf
from open_rs.grading.expression import TooLargeError
from open_rs.grading.extract import Extraction, extract, trailing_boxes
from open_rs.grading.limits import refuse
from open_rs.grading.normalise import normalise
from open_rs.grading.pool import Question, WorkerPool
from open_rs.grading.shape import Many, shape_of
from open_rs.types import Verdict

_MAX_MEMO = 1 << 17
_live: weakref.WeakSet[Grader] = weakref.WeakSet()


class Pending:
    """A verdict that may still be on its way. `result()` waits; `await pending` waits without blocking the event
    loop.
    """

    __slots__ = ("_extracted", "_outcome", "_reading_seconds")

    def __init__(self, extracted: str | None, outcome: Outcome, reading_seconds: float) -> None:
        self._extracted = extracted
        self._reading_seconds = reading_seconds
        self._outcome = outcome

    def done(self) -> bool:
        """Whether `result()` returns at once."""
        return self._outcome.is_set()

    def result(self) -> Verdict:
        """The verdict. Raises `WorkerError` where no worker process can be started."""
        correct, reason = self._outcome.wait()
        return Verdict(correct, self._extracted, reason)

    @property
    def seconds(self) -> float:
        """What reading and comparing took, once done; time spent waiting for a free worker is not counted."""
        return self._reading_seconds + self._outcome.seconds

    def __await__(self) -> Generator[Any, None, Verdict]:
        if self.done():
            return self.result()
        return (yield from asyncio.to_thread(self.result).__await__())


class Outcome:
    """What one comparison found; several completions with the same answer share it."""

    __slots__ = ("_error", "_event", "_found", "seconds")

    def __init__(self, found: tuple[bool | None, str] | None = None) -> None:
        self._found = found
        self._error: Exception | None = None
        self.seconds = 0.0
        self._event = threading.Event() if found is None else None

    def is_set(self) -> bool:
        return self._event is None or self._event.is_set()

    def set(self, correct: bool | None, reason: str, seconds: float) -> None:
        self._found = (correct, reason)
        self.seconds = seconds
        if self._event is not None:
            self._event.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        if self._event is not None:
            self._event.set()

    def wait(self) -> tuple[bool | None, str]:
        if self._event is not None:
            self._event.wait()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


class Grader:
    """Grades completions against golds.

    Exact matches are settled in the calling thread; worker processes start only when something needs symbolic
    mathematics, and a worker that passes `timeout_seconds` is killed and replaced. Safe to use from threads, from
    `asyncio` and after `fork`; a context manager, though leaving it open until the interpreter exits leaks nothing
    either.
    """

    def __init__(self, num_workers: int = 2, timeout_seconds: float = 5.0) -> None:
        self._num_workers = num_workers
        self._timeout_seconds = timeout_seconds
        self._reset()
        _live.add(self)

    def submit(
        self,
        gold: str,
        completion: str,
        *,
        reasoning_open: bool = False,
        fallback: bool = False,
        relative_tolerance: float | None = None,
    ) -> Pending:
        """Start grading one completion. `gold` may be bare or hold boxes, as MATH's solutions do.

        `reasoning_open`: the prompt ended inside `<think>`. `fallback`: accept answers outside a box (evaluation).
        `relative_tolerance`: how far a number may lie from the gold, as a share of it; only where the benchmark says
        so.
        """
        started = time.perf_counter()
        gold_answer, num_answers = _read_gold(gold)
        found = extract(completion, reasoning_open=reasoning_open, fallback=fallback)
        answer = _answer_for(found, num_answers)
        if answer is None:
            outcome = Outcome((False, found.reason) if gold_answer else (None, "gold_empty"))
        else:
            outcome = self.compare(gold_answer, normalise(answer), relative_tolerance)
        return Pending(answer, outcome, time.perf_counter() - started)

    def grade(self, gold: str, completion: str, **options: Any) -> Verdict:
        """`submit(...).result()`."""
        return self.submit(gold, completion, **options).result()

    def compare(
        self, gold: str, answer: str, relative_tolerance: float | None = None, *, shortcut: bool = True
    ) -> Outcome:
        """Compare two normalised answers, or find the comparison already under way.

        Without `shortcut` equal strings prove nothing: an audit asks whether a gold survives the comparison itself.
        """
        key = (gold, answer, relative_tolerance, shortcut)
        with self._lock:
            known = self._memo.get(key)
            if known is not None:
                self._memo.move_to_end(key)
                return known
            settled = _settle(gold, answer, relative_tolerance, shortcut)
            outcome = self._memo[key] = Outcome(settled)
            if len(self._memo) > _MAX_MEMO:
                self._memo.popitem(last=False)
        if settled is None:
            self._pool.submit(Question(gold, answer, relative_tolerance, shortcut, outcome.set, outcome.fail))
        return outcome

    def close(self) -> None:
        """End the workers. Calling it twice is harmless."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reset(self) -> None:
        """Fresh locks, memo and workers: at the start, and in the child of a fork, where the parent's are not ours."""
        self._lock = threading.Lock()
        self._memo: OrderedDict[tuple[str, str, float | None, bool], Outcome] = OrderedDict()
        self._pool = WorkerPool(self._num_workers, self._timeout_seconds)
        self._finalizer = weakref.finalize(self, self._pool.close)


def _settle(
    gold: str, answer: str, relative_tolerance: float | None, shortcut: bool = True
) -> tuple[bool | None, str] | None:
    """The outcome, where exact rules or static limits give one."""
    if gold == answer and gold and shortcut:
        return True, "equal"
    if not gold:
        return None, "gold_empty"
    if not answer:
        return False, "empty"
    try:
        correct = equal(gold, answer, exact_leaf, relative_tolerance, shortcut=shortcut)
    except TooLargeError:
        return False, "too_large"
    except Undecided:
        refused = refuse(answer, gold)
        return None if refused is None else (False, refused)
    return correct, "exact" if correct else "different"


@lru_cache(maxsize=1 << 14)
def _read_gold(gold: str) -> tuple[str, int]:
    """The normalised gold and how many answers it lists."""
    boxes = trailing_boxes(gold)
    answer = normalise(", ".join(boxes[-1:]) if boxes else gold)
    shape = shape_of(answer)
    return answer, len(shape.parts) if isinstance(shape, Many) and shape.kind in ("list", "set") else 1


def _answer_for(found: Extraction, num_answers: int) -> str | None:
    """The last box; several boxes only where the gold lists as many answers and the last box alone holds one."""
    if found.answer is None or num_answers == 1 or len(found.boxes) < num_answers:
        return found.answer
    if isinstance(shape_of(normalise(found.answer)), Many):
        return found.answer
    return ", ".join(found.boxes[-num_answers:])


def _forget_parent() -> None:
    for grader in list(_live):
        grader._finalizer.detach()
        grader._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
