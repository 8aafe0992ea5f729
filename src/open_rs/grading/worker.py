"""Owns the worker process: questions in, verdicts out, one JSON line each. It dies without harm to anybody."""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, BinaryIO

_ADDRESS_SPACE_BYTES = 3 << 30
_ORPHAN_GRACE_SECONDS = 5


def main() -> None:
    """Serve on standard input and output until the parent closes the pipe."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not enter the protocol
    try:
        from open_rs.grading import symbolic
    except ImportError as missing:
        _send(answers, {"failed": str(missing)})
        return
    symbolic.warm_up()
    _limit_memory()
    _send(answers, {"ready": True})
    for line in questions:
        question = json.loads(line)
        _limit_cpu(question["timeout_seconds"])
        _send(answers, _answer(symbolic, question))


def _answer(symbolic: Any, question: dict[str, Any]) -> dict[str, Any]:
    """A verdict for any question: what goes wrong inside is the answer's fault, unless the gold alone fails."""
    gold, answer = question["gold"], question["answer"]
    try:
        correct = symbolic.symbolic_equal(gold, answer, question["relative_tolerance"], question["shortcut"])
    except symbolic.GoldError:
        return {"correct": None, "reason": "gold_unparsable"}
    except (MemoryError, RecursionError, OverflowError):
        return {"correct": False, "reason": "too_large"}
    except Exception as error:
        return {"correct": False, "reason": f"unparsable: {type(error).__name__}"}
    return {"correct": correct, "reason": "symbolic" if correct else "different"}


def _send(stream: BinaryIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _ADDRESS_SPACE_BYTES if hard == resource.RLIM_INFINITY else min(_ADDRESS_SPACE_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _limit_cpu(timeout_seconds: float) -> None:
    """Let the kernel end a worker whose parent died in the middle of a question that never returns."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = used + int(timeout_seconds) + _ORPHAN_GRACE_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    main()
