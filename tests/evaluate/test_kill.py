"""An evaluation that is killed with SIGKILL at random moments ends as the uninterrupted one does."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PROBLEMS, SAMPLES, KILLS = 40, 6, 10
COMMAND = (
    *(sys.executable, "-m", "open_rs", "evaluate", "open-rs-tiny", "--limit", str(PROBLEMS), "--samples", str(SAMPLES)),
    *("--max-concurrent", "8"),  # so that completions arrive one after the other and not all at the end
)
SCRIPTED = """
import sys, time
from pathlib import Path
from open_rs.evaluate.protocols import Protocol
from open_rs.evaluate.run import evaluate
from open_rs.rollout.scripted import ScriptedEngine
from open_rs.types import Problem

class Letters:
    chat_template = None
    def __call__(self, text, **options):
        return {"input_ids": [ord(letter) for letter in text]}

def answer(prompt, sample):
    time.sleep(float(sys.argv[2]))
    number = int(prompt.problem_id.split(":")[1])
    return "\\\\boxed{\\\\sqrt{%d}}" % (number * number + (number + sample) % 3)

if __name__ == "__main__":
    problems = [Problem(f"roots:{i}", f"What is {i}?", str(i), "roots") for i in range(2, 32)]
    evaluate(ScriptedEngine(answer), Letters(), {"roots": problems}, Protocol("test", samples=8), out=Path(sys.argv[1]))
"""


def start(*command: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(*command: str) -> None:
    _, errors = (child := start(*command)).communicate()
    assert child.returncode == 0, errors.decode()


def kill_after(child: subprocess.Popen[bytes], log: Path, lines: int) -> bool:
    """SIGKILL once the log holds so many lines, wherever the child is then; whether it was still running."""
    while child.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    running = child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return running


def assert_same_files(one: Path, other: Path) -> None:
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def assert_none_lost_or_doubled(log: Path, count: int) -> None:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == count


@pytest.mark.timeout(240)
def test_ten_kills_change_nothing_where_a_script_answers_and_workers_grade(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(SCRIPTED)
    finish(sys.executable, str(script), str(tmp_path / "whole"), "0")
    draw, log = random.Random(4), tmp_path / "killed" / "completions.jsonl"
    for moment in sorted(draw.sample(range(240), KILLS)):
        kill_after(start(sys.executable, str(script), str(tmp_path / "killed"), "0.002"), log, moment)
    finish(sys.executable, str(script), str(tmp_path / "killed"), "0")
    assert_same_files(tmp_path / "whole", tmp_path / "killed")
    assert_none_lost_or_doubled(log, 240)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_of_the_real_command_change_nothing_where_the_embedded_model_answers(tmp_path: Path) -> None:
    finish(*COMMAND, "--out", str(tmp_path / "whole"))
    draw, log = random.Random(4), tmp_path / "killed" / "completions.jsonl"
    moments = sorted(draw.sample(range(PROBLEMS * SAMPLES), KILLS))
    killed = [kill_after(start(*COMMAND, "--out", str(tmp_path / "killed")), log, moment) for moment in moments]
    finish(*COMMAND, "--out", str(tmp_path / "killed"))
    assert sum(killed) >= KILLS - 1, f"killed too late to matter: {moments}"
    assert_same_files(tmp_path / "whole", tmp_path / "killed")
    assert_none_lost_or_doubled(log, PROBLEMS * SAMPLES)
