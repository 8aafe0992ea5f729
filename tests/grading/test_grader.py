"""The grading service: cheap where it can be, never stuck, never leaking a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from open_rs.grading import Grader
from open_rs.types import UserError

# Readable by Math-Verify only, so that a worker must decide.
NEEDS_WORKER = ("\\lfloor n/2\\rfloor", "\\boxed{\\lfloor \\frac{n}{2}\\rfloor + 0}")


def workers_of(grader: Grader) -> list[int]:
    return [worker._process.pid for worker in grader._pool._workers if worker._process is not None]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_exact_matches_start_no_process() -> None:
    with Grader() as grader:
        pending = grader.submit("\\frac{1}{2}", "so \\boxed{0.5}")
        assert pending.done()
        assert pending.result().correct is True
        assert workers_of(grader) == []


def test_equal_answers_of_a_group_cost_one_comparison() -> None:
    with Grader(num_workers=1) as grader:
        outcomes = {id(grader.submit(*NEEDS_WORKER)._outcome) for _ in range(8)}
        assert len(outcomes) == 1


def test_workers_are_gone_after_close() -> None:
    with Grader(num_workers=2) as grader:
        assert grader.grade(*NEEDS_WORKER).correct is True
        pids = workers_of(grader)
        assert pids
    assert not any(alive(pid) for pid in pids)


def test_closing_twice_is_harmless_and_a_closed_grader_says_so() -> None:
    grader = Grader()
    grader.close()
    grader.close()
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade(*NEEDS_WORKER)


def test_a_question_past_its_deadline_is_wrong_and_the_next_one_is_answered() -> None:
    with Grader(num_workers=1, timeout_seconds=3.0) as grader:
        assert grader.grade(*NEEDS_WORKER).correct is True
        stop = workers_of(grader)[0]
        os.kill(stop, signal.SIGSTOP)  # as stuck as C code that never returns
        hung = grader.submit("\\lfloor n/3\\rfloor", "\\boxed{\\lfloor \\frac{n}{3}\\rfloor + 0}")
        verdict = hung.result()
        assert (verdict.correct, verdict.reason) == (False, "timeout")
        assert hung.seconds < 4.0
        assert grader.grade("\\lfloor n/5\\rfloor", "\\boxed{\\lfloor \\frac{n}{5}\\rfloor + 0}").correct is True
        assert not alive(stop)


def test_a_worker_killed_from_outside_costs_one_retry_and_nothing_else() -> None:
    with Grader(num_workers=1, timeout_seconds=30) as grader:
        grader.grade(*NEEDS_WORKER)
        os.kill(workers_of(grader)[0], signal.SIGKILL)
        assert grader.grade("\\lfloor n/7\\rfloor", "\\boxed{\\lfloor \\frac{n}{7}\\rfloor + 0}").correct is True


def test_many_threads_share_one_grader() -> None:
    rows = [(f"\\lfloor n/{k}\\rfloor", f"\\boxed{{\\lfloor \\frac{{n}}{{{k}}}\\rfloor}}") for k in range(2, 10)] * 4
    with Grader(num_workers=2, timeout_seconds=30) as grader, ThreadPoolExecutor(8) as threads:
        assert all(verdict.correct for verdict in threads.map(lambda row: grader.grade(*row), rows))


def test_async_code_awaits_without_blocking_the_loop() -> None:
    async def run() -> tuple[bool | None, int]:
        ticks = 0
        with Grader(num_workers=1, timeout_seconds=30) as grader:
            pending = grader.submit(*NEEDS_WORKER)
            waiting = asyncio.ensure_future(asyncio.wait_for(pending, 60))
            while not waiting.done():
                ticks += 1
                await asyncio.sleep(0.01)
            return waiting.result().correct, ticks

    correct, ticks = asyncio.run(run())
    assert correct is True
    assert ticks > 3


def run_python(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def test_a_child_of_fork_grades_with_workers_of_its_own() -> None:
    done = run_python(
        r"""
        import os, sys
        from open_rs.grading import Grader
        grader = Grader(num_workers=1, timeout_seconds=30)
        row = (r"\lfloor n/2\rfloor", r"\boxed{\lfloor \frac{n}{2}\rfloor}")
        assert grader.grade(*row).correct
        pid = os.fork()
        if pid == 0:
            ok = grader.grade(r"\lfloor n/3\rfloor", r"\boxed{\lfloor \frac{n}{3}\rfloor}").correct
            grader.close()
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert grader.grade(r"\lfloor n/4\rfloor", r"\boxed{\lfloor \frac{n}{4}\rfloor}").correct
        grader.close()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "import os; os._exit(0)"], ids=["end", "exit", "_exit"])
def test_no_process_outlives_an_interpreter_that_forgot_to_close(ending: str) -> None:
    done = run_python(
        rf"""
        from open_rs.grading import Grader
        grader = Grader(num_workers=2, timeout_seconds=30)
        grader.submit(r"\lfloor n/2\rfloor", r"\boxed{{\lfloor \frac{{n}}{{2}}\rfloor}}").result()
        print(*[worker._process.pid for worker in grader._pool._workers], flush=True)
        {ending}
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    deadline = time.monotonic() + 10
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def test_grading_leaves_signals_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGINT)]
    signal.alarm(50)
    try:
        with Grader(num_workers=1, timeout_seconds=30) as grader:
            grader.grade(*NEEDS_WORKER)
        assert signal.alarm(0) > 0, "the caller's alarm was cancelled"
    finally:
        signal.alarm(0)
    assert before == [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGCHLD, signal.SIGINT)]


def test_an_unparsable_gold_scores_nobody_but_its_own_words() -> None:
    gold = "\\frac{1}{"
    with Grader(num_workers=1, timeout_seconds=30) as grader:
        assert grader.grade(gold, "\\boxed{5}").correct is None
        assert grader.grade("", "\\boxed{5}").correct is None
        assert grader.grade("", "no box at all").correct is None


def test_relative_tolerance_acts_only_where_it_is_given() -> None:
    with Grader() as grader:
        assert grader.grade("1.6", "\\boxed{1.61}").correct is False
        assert grader.grade("1.6", "\\boxed{1.61}", relative_tolerance=0.01).correct is True
        assert grader.grade("1.6", "\\boxed{1.63}", relative_tolerance=0.01).correct is False
        assert grader.grade("41.8", "\\boxed{\\arcsin(1)}", relative_tolerance=0.01).correct is False


def test_truncated_reasoning_is_never_read() -> None:
    with Grader() as grader:
        verdict = grader.grade("7", "it is \\boxed{7}", reasoning_open=True)
        assert (verdict.correct, verdict.extracted, verdict.reason) == (False, None, "truncated")
        assert grader.grade("7", "hm</think>it is \\boxed{7}", reasoning_open=True).correct is True


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The final answer is $7$.", "7"),
        ("The answer is 7.", "7"),
        ("**Answer:** 7", "7"),
        ("Therefore the final answer is: $\\frac{1}{2}$. I hope it is correct.", "\\frac{1}{2}"),
        ("So we get \\(x = 7\\).", "x = 7"),
        ("That makes 12 apples, and then 7", "7"),
        ("It costs 1,234.50 in all", "1,234.50"),
    ],
)
def test_fallbacks_find_answers_outside_boxes(text: str, answer: str) -> None:
    with Grader() as grader:
        assert grader.submit("7", text, fallback=True).result().extracted == answer
        assert grader.grade("7", text).reason == "no_answer"


def test_verdicts_survive_a_storm_of_kills() -> None:
    with Grader(num_workers=2, timeout_seconds=30) as grader:
        rows = [(f"\\lceil n/{k}\\rceil", f"\\boxed{{\\lceil \\frac{{n}}{{{k}}}\\rceil}}") for k in range(2, 22)]
        grader.grade(*rows[0])
        pending = [grader.submit(*row) for row in rows]
        stop = threading.Event()

        def kill_sometimes() -> None:
            for _ in range(2):
                if stop.wait(0.2):
                    return
                for pid in workers_of(grader)[:1]:
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_sometimes)
        killer.start()
        verdicts = [one.result() for one in pending]
        stop.set()
        killer.join()
    assert sum(verdict.correct is True for verdict in verdicts) >= len(rows) - 2


def test_files_are_graded_row_by_row(tmp_path: Path) -> None:
    import gzip
    import json

    from open_rs.grading.files import grade_file

    source, out = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz"
    rows = [
        {"id": "a", "gold": "1/2", "completion": "\\boxed{0.5}"},
        {"id": "b", "gold": 27.0, "completion": "\\boxed{28}"},
        {"id": "c", "gold": "1.6", "completion": "\\boxed{1.61}", "relative_tolerance": 0.01},
        {"gold": "5", "completion": "\ud800"},
    ]
    with gzip.open(source, "wt") as sink:
        sink.write("\n".join(json.dumps(row) for row in rows) + "\n")
    totals = grade_file(source, out)
    with gzip.open(out, "rt") as lines:
        found = [json.loads(line) for line in lines]
    assert [(row["id"], row["correct"]) for row in found] == [("a", True), ("b", False), ("c", True), (4, False)]
    assert totals.outcomes == {"right": 2, "wrong": 2}
    assert all(row["ms"] >= 0 for row in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ("[1]", "instead of an object"), ('{"gold": "5"}', '"completion"')],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    from open_rs.grading.files import grade_file

    source = tmp_path / "in.jsonl"
    source.write_text('{"gold": "5", "completion": "\\\\boxed{5}"}\n' + line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        grade_file(source, tmp_path / "out.jsonl")
    assert ":2:" in str(caught.value)
