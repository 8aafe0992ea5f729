"""Grade a file with a rival, in its own environment: `python grading_rival.py ROWS OUT NAME WORKERS DEADLINE`.

Rivals use signals and can hang; each runs in processes that are killed one second after the deadline.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

Grade = Callable[[str, str], "bool | None"]


def _math_verify() -> Grade:
    """Math-Verify as its documentation uses it, default time-outs and all; a gold without delimiters is wrapped."""
    from math_verify import parse, verify

    def grade(gold: str, completion: str) -> bool | None:
        return bool(verify(parse(gold if "$" in gold or "boxed" in gold else f"${gold}$"), parse(completion)))

    return grade


def _trl() -> Grade:
    """TRL's accuracy reward on one chat completion; None is its "gold can't be parsed"."""
    from trl.rewards import accuracy_reward  # pyright: ignore[reportMissingImports]

    def grade(gold: str, completion: str) -> bool | None:
        solution = gold if "$" in gold or "boxed" in gold else f"${gold}$"
        reward = accuracy_reward([[{"role": "assistant", "content": completion}]], [solution])[0]
        return None if reward is None else reward == 1.0

    return grade


def _serve(pipe: Connection, name: str) -> None:
    grade = RIVALS[name]()
    pipe.send("ready")
    while True:
        gold, completion = pipe.recv()
        try:
            verdict = grade(gold, completion)
        except BaseException as error:  # rivals raise BaseException on time-outs
            print(f"{name} raised {type(error).__name__}", file=sys.stderr)
            verdict = False
        pipe.send(verdict)


class _Worker:
    """A rival in a process, replaced when it is killed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.row: dict[str, Any] | None = None
        self.started = 0.0
        self.restart()

    def restart(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, child = context.Pipe()
        self.process = context.Process(target=_serve, args=(child, self._name), daemon=True)
        self.process.start()
        assert self.pipe.recv() == "ready"

    def give(self, row: dict[str, Any]) -> None:
        self.row, self.started = row, time.perf_counter()
        self.pipe.send((row["gold"], row["completion"]))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def main() -> None:
    """Keep every worker busy until the rows are done."""
    source, out, name, num_workers, deadline = sys.argv[1:]
    rows = [json.loads(line) for line in Path(source).read_text().splitlines()]
    workers = [_Worker(name) for _ in range(int(num_workers))]
    with Path(out).open("w") as sink:
        while rows or any(worker.row for worker in workers):
            for worker in workers:
                if worker.row is None and rows:
                    worker.give(rows.pop(0))
            ready = wait([worker.pipe for worker in workers if worker.row], timeout=0.05)
            for worker in workers:
                _collect(worker, worker.pipe in ready, sink, float(deadline))
    for worker in workers:
        worker.kill()


def _collect(worker: _Worker, ready: bool, sink: Any, deadline: float) -> None:
    if worker.row is None:
        return
    seconds = time.perf_counter() - worker.started
    if not ready and seconds < deadline + 1:
        return
    verdict = None
    if ready:
        try:
            verdict = worker.pipe.recv()
        except EOFError:
            worker.restart()
    else:
        worker.kill()
        worker.restart()
    sink.write(json.dumps({"id": worker.row["id"], "correct": verdict, "ms": round(seconds * 1000, 3)}) + "\n")
    worker.row = None


RIVALS = {"math-verify": _math_verify, "trl": _trl}

if __name__ == "__main__":
    main()
