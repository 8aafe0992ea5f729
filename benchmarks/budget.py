"""Claim: the demo with a budget in minutes ends inside it, uses at least nine tenths of it, and finishes what it began.

Three budgets, and one run slowed to half speed from its middle on, each in a process of its own; wall time is that of
the whole process.

    python benchmarks/budget.py --json budget.json
    figure: X      the smallest share of a budget that was used; above 1 a run overshot
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BUDGETS_SECONDS = (60, 120, 240)
SLOWED_SECONDS = 120
RUN = """
import sys, time
from pathlib import Path
from open_rs.config.load import load_recipe
from open_rs.train.budget import process_started
from open_rs.train.run import train
seconds, out, slow_after = float(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
last = time.time()
def observe(kind, row):
    global last
    if kind == "step":
        if time.time() - process_started() > slow_after:
            time.sleep(time.time() - last)
        last = time.time()
train(load_recipe("demo", [f"budget.hours={seconds / 3600}"]), out, observe, process_started())
"""


def measure(seconds: float, slow_after: float = float("inf")) -> dict[str, Any]:
    """One run: its wall time, the share of the budget used, and whether it finished."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        started = time.time()
        subprocess.run([sys.executable, "-c", RUN, str(seconds), str(out), str(slow_after)], check=True)
        took = time.time() - started
        summary = json.loads((out / "summary.json").read_text())
        last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        return {
            "budget_seconds": seconds,
            "slowed": slow_after < seconds,
            "wall_seconds": took,
            "used": took / seconds,
            "steps": summary["steps"],
            "final_learning_rate": last["learning_rate"],
            "evaluated": "trained" in summary,
            "saved": (out / "model" / "config.json").is_file(),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [measure(seconds) for seconds in BUDGETS_SECONDS] + [measure(SLOWED_SECONDS, SLOWED_SECONDS / 2)]
    for row in rows:
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    whole = [row["used"] for row in rows if not row["slowed"]]
    print(f"figure: {min(whole):.3f} used at least, {max(row['used'] for row in rows):.3f} at most")


if __name__ == "__main__":
    main()
