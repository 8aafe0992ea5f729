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
CHILD = """
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


def start(out: Path, seconds_a_sample: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    script = out.parent / "child.py"
    script.write_text(CHILD)
    return subprocess.Popen([sys.executable, str(script), str(out), str(seconds_a_sample)], env=environment)


def kill_after(child: subprocess.Popen[bytes], log: Path, lines: int) -> None:
    """SIGKILL once the log holds so many lines, wherever the child is then."""
    while child.poll() is None and (not log.exists() or log.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()


@pytest.mark.timeout(240)
def test_ten_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    assert start(tmp_path / "whole", 0.0).wait() == 0
    draw, log = random.Random(4), tmp_path / "killed" / "completions.jsonl"
    for moment in sorted(draw.sample(range(240), 10)):
        kill_after(start(tmp_path / "killed", 0.002), log, moment)
    assert start(tmp_path / "killed", 0.0).wait() == 0
    for name in ("completions.jsonl", "results.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == 240
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {
        "completions.jsonl",
        "results.json",
        "evaluation.json",
    }
