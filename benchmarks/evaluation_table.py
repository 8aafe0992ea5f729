"""Claims of the evaluation, each measured by its command, as one Markdown table.

    open-rs demo --out runs/demo
    python benchmarks/evaluation_table.py --data ../shared/data --run runs/demo

Table 1 from files in lighteval's layout; the sweep over the published checkpoints; ten kills of the real command; what
pairing is worth between neighbouring checkpoints of a demo run, as `report.html` shows it; the time that a file of
completions made elsewhere takes. A line whose input is absent says so.

    figure: X      lines that hold, of those that were measured
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_rs.evaluate import published

REPOSITORY = Path(__file__).resolve().parents[1]
LOAD_SECONDS, NARROWER = 40.0, 1.3  # targets
AVERAGES = {"Open-RS1": 53.0, "Open-RS2": 55.7, "Open-RS3": 56.3}  # as the paper's Table 1 prints them


@dataclass(frozen=True)
class Line:
    """One claim: how it was measured, what came out, and whether it holds; None where an input is absent."""

    command: str
    result: str
    holds: bool | None

    def __str__(self) -> str:
        return f"| `{self.command}` | {self.result} | {MARKS[self.holds]} |"


def open_rs(*words: object) -> str:
    """Standard output of the command."""
    command = [sys.executable, "-m", "open_rs", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rebuild_table_1(arguments: argparse.Namespace) -> Line:
    with tempfile.TemporaryDirectory() as place:
        for model in AVERAGES:
            for task, cell in published.require(model).cells.items():
                correct = round(cell.value * cell.problems)  # one sample a problem, so a share is a count
                write_lighteval(Path(place), model, task, correct / cell.problems, cell.problems)
        rows = json.loads(open_rs("evaluate", "--from-lighteval", place, "--json"))
    found = {row["model"].rpartition("/")[2]: row["avg"] for row in rows}
    shown = ", ".join(
        f"{name} {100 * avg['value']:.1f} ({100 * avg['ci95'][0]:.1f} to {100 * avg['ci95'][1]:.1f})"
        for name, avg in found.items()
    )
    holds = all(round(100 * found[name]["value"], 1) == average for name, average in AVERAGES.items())
    return Line("open-rs evaluate --from-lighteval DIR", shown, holds)


def write_lighteval(directory: Path, model: str, task: str, share: float, problems: int) -> None:
    """One result file as lighteval writes it."""
    value = {
        "config_general": {"model_name": f"knoveleng/{model}"},
        "results": {f"custom|{task}|0": {"extractive_match": share}},
        "config_tasks": {f"custom|{task}": {"original_num_docs": problems}},
    }
    file = directory / "results" / "knoveleng" / model / f"results_{task}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def sweep_published(arguments: argparse.Namespace) -> Line:
    sweep = json.loads(open_rs("published", "checkpoints", "--json"))["sweeps"][0]
    result = (
        f"{sweep['num_checkpoints']} checkpoints, AIME24 mean {100 * sweep['mean']:.1f} %, best "
        f"{100 * sweep['best']:.1f} %, expected best at a constant {100 * sweep['mean']:.0f} %: "
        f"{100 * sweep['expected_best']:.1f} %"
    )
    return Line("open-rs published checkpoints", result, abs(sweep["best"] - sweep["expected_best"]) < 0.01)


def kill_ten_times(arguments: argparse.Namespace) -> Line:
    words = ("-m", "pytest", "-m", "slow", "tests/evaluate/test_kill.py")
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True)
    result = f"ten SIGKILLs, {time.perf_counter() - started:.0f} s: {ended.stdout.strip().splitlines()[-1]}"
    return Line("pytest -m slow tests/evaluate/test_kill.py", result, ended.returncode == 0)


def pair_neighbours(arguments: argparse.Namespace) -> Line:
    command = "open-rs evaluate RUN --checkpoints all"
    run: Path | None = arguments.run
    if run is None or not (run / "recipe.yaml").is_file():
        return Line(command, "no demo run; make one and give it with --run", None)
    open_rs("evaluate", run, "--checkpoints", "all")
    before, after = sorted((run / "results" / "checkpoints" / "validation").glob("step-*"))[-2:]
    found = json.loads(open_rs("compare", before, after, "--json"))["benchmarks"]["held_out"]
    with tempfile.TemporaryDirectory() as place:
        open_rs("evaluate", run, "--checkpoints", "all", "--seed", 1, "--out", place)
        other_luck = json.loads(open_rs("compare", before, f"{place}/validation/{after.name}", "--json"))
    sides = {name: [100 * bound for bound in found[name]] for name in ("ci95", "unpaired_ci95")}
    result = (
        f"{before.name} and {after.name}, {found['n']} problems: {100 * found['difference']:+.2f} points, paired "
        f"{sides['ci95'][0]:+.2f} to {sides['ci95'][1]:+.2f}, unpaired {sides['unpaired_ci95'][0]:+.2f} to "
        f"{sides['unpaired_ci95'][1]:+.2f}: {found['gain_from_pairing']:.1f} x narrower; with another seed on "
        f"one side, so that only the problems are shared, "
        f"{other_luck['benchmarks']['held_out']['gain_from_pairing']:.1f} x"
    )
    shown = re.search(r"<b>([\d.]+) times narrower</b>", (run / "report.html").read_text(encoding="utf-8"))
    in_report = shown is not None and shown[1] == f"{found['gain_from_pairing']:.1f}"
    return Line(command, result, in_report and found["gain_from_pairing"] >= NARROWER)


def load_outputs(arguments: argparse.Namespace) -> Line:
    command = "open-rs evaluate --load-outputs completions_dev.jsonl.gz"
    file = None if arguments.data is None else arguments.data / "grading" / "completions_dev.jsonl.gz"
    if file is None or not file.is_file():
        return Line(command, "no completions; give their folder with --data", None)
    started = time.perf_counter()
    found: list[dict[str, Any]] = json.loads(open_rs("evaluate", "--load-outputs", file, "--json"))
    seconds = time.perf_counter() - started
    rows = sum(part["diagnostics"]["completions"] for model in found for part in model["benchmarks"].values())
    result = f"{rows:,} completions scored, {len(found)} models, {seconds:.1f} s"
    return Line(command, result, seconds < LOAD_SECONDS)


MARKS = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}
LINES: dict[str, Callable[[argparse.Namespace], Line]] = {
    "table-1": rebuild_table_1,
    "published": sweep_published,
    "kills": kill_ten_times,
    "pairing": pair_neighbours,
    "outputs": load_outputs,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder with `grading/completions_dev.jsonl.gz`")
    parser.add_argument("--run", type=Path, help="a finished demo run")
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print("| command | result | |\n|---|---|---|")
    measured = []
    for name in arguments.lines:
        measured.append(LINES[name](arguments))
        print(measured[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(line) for line in measured], indent=1))
    print(f"figure: {sum(line.holds is True for line in measured)}")
