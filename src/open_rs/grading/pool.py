"""Owns the worker processes: a thread each hands out questions, holds the deadline, kills and starts anew."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_START_SECONDS = 120.0  # importing sympy on a loaded machine
_MAX_STARTS = 3
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from open_rs.grading.worker import main; main()"
_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",  # sympy orders by hash: the same question gets the same answer
    "SYMPY_GROUND_TYPES": "python",  # gmpy2, installed or not, makes no difference
    "MPMATH_NOGMPY": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True)
class Question:
    """Two normalised answers, and who is told: `reply(correct, reason, seconds)`; seconds count from dispatch."""

    gold: str
    answer: str
    relative_tolerance: float | None
    shortcut: bool
    reply: Callable[[bool | None, str, float], None]
    fail: Callable[[Exception], None]


class WorkerError(RuntimeError):
    """The worker process could not be started at all."""


class WorkerPool:
    """Killable processes behind one queue. Threads and processes start with the first question."""

    def __init__(self, num_workers: int, timeout_seconds: float) -> None:
        self._num_workers = num_workers
        self._timeout_seconds = timeout_seconds
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, question: Question) -> None:
        """Queue a question; its `reply` is called from another thread."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the grader is closed; open a new one")
            self._questions.put(question)
            if len(self._threads) < self._num_workers and self._questions.qsize() > 0:
                self._start_thread()

    def close(self) -> None:
        """End every worker and wait for it. Questions still open fail. Calling it twice is harmless."""
        with self._lock:
            self._closed = True
            threads, workers = self._threads, self._workers
            self._threads, self._workers = [], []
        for _ in threads:
            self._questions.put(None)
        for worker in workers:
            worker.kill()
        if threading.current_thread() not in threads:
            for thread in threads:
                thread.join(timeout=5)

    def _start_thread(self) -> None:
        worker = _Worker(self._timeout_seconds)
        thread = threading.Thread(target=_serve, args=(worker, self._questions), name="open-rs-grader", daemon=True)
        self._workers.append(worker)
        self._threads.append(thread)
        thread.start()


def _serve(worker: _Worker, questions: queue.SimpleQueue[Question | None]) -> None:
    while (question := questions.get()) is not None:
        try:
            correct, reason, seconds = worker.ask(question)
        except Exception as error:
            question.fail(error)
        else:
            question.reply(correct, reason, seconds)
    worker.kill()


class _Worker:
    """One process at a time, replaced when it hangs or dies. Only its own thread asks; anybody may kill."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._retired = False
        self._lock = threading.Lock()

    def ask(self, question: Question) -> tuple[bool | None, str, float]:
        """One verdict and its seconds; a worker that dies is replaced and asked once more."""
        seconds = 0.0
        for _ in range(2):
            message, seconds = self._exchange(question)
            if message == "timeout":
                return False, "timeout", seconds
            if isinstance(message, dict):
                return message["correct"], message["reason"], seconds
        return False, "worker_died", seconds

    def kill(self) -> None:
        """SIGKILL the process, collect it, and start no other."""
        with self._lock:
            self._retired = True
            self._discard()

    def _exchange(self, question: Question) -> tuple[dict[str, Any] | str | None, float]:
        """The reply, "timeout", or None where the process died; and the seconds since dispatch."""
        process = self._running()
        started = time.monotonic()
        line = json.dumps(
            {
                "gold": question.gold,
                "answer": question.answer,
                "relative_tolerance": question.relative_tolerance,
                "shortcut": question.shortcut,
                "timeout_seconds": self._timeout_seconds,
            }
        ).encode()
        try:
            assert process.stdin is not None
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            reply = _read_line(process, self._timeout_seconds)
        except TimeoutError:  # before OSError, of which it is one
            reply = "timeout"
        except (OSError, EOFError, ValueError):
            reply = None
        if not isinstance(reply, dict):
            with self._lock:
                self._discard()
        return reply, time.monotonic() - started

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._retired:
                raise WorkerError("the grader was closed while a completion was being graded")
            if self._process is not None and self._process.poll() is None:
                return self._process
            self._discard()
        problem = "it died"
        for _ in range(_MAX_STARTS):
            process = self._start()
            try:
                greeting = _read_line(process, _START_SECONDS)
            except (OSError, EOFError, ValueError) as error:
                problem = repr(error)
            else:
                if "ready" in greeting:
                    return process
                problem = greeting["failed"]
        raise WorkerError(f"the grading worker does not start ({problem}); try `python -m open_rs.grading.worker`")

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._retired:
                raise WorkerError("the grader was closed while a completion was being graded")
            self._discard()
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _BOOT, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
            )
            return self._process

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes to a dead process
                    stream.close()


def _read_line(process: subprocess.Popen[bytes], timeout_seconds: float) -> dict[str, Any]:
    """One JSON line from the process; raises `TimeoutError` past the deadline and `EOFError` where it died."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_seconds
    received = b""
    while not received.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not select.select([process.stdout], [], [], remaining)[0]:
            raise TimeoutError
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            raise EOFError("the worker died")
        received += chunk
    return json.loads(received)
