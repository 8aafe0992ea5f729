"""Measure the grader against Math-Verify's default and TRL's `accuracy_reward`, on the same rows, in one run.

A wrong verdict is one that contradicts a firm expectation: `cases.jsonl` (expected true or false), the tiers `int` and
`agree` of real completions, less the labels of `agree` that are provably wrong (`label_errors.json` lists them and
says why), and `bombs.jsonl.gz`, where the only firm expectation is that a verdict comes before the deadline.
The rivals run in an environment of their own, each row in a process that is killed at the deadline plus a second.

    python benchmarks/grading.py --data ../shared/data/grading --json out.json
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RIVAL_ENVIRONMENT = ROOT / ".envs" / "trl"
LABEL_ERRORS = ROOT / "benchmarks" / "label_errors.json"
DEADLINE_SECONDS = 5.0
WORKERS = 2
FILES = ("cases.jsonl", "completions_dev.jsonl.gz", "completions_r1_dev.jsonl.gz", "bombs.jsonl.gz")


@dataclass(frozen=True)
class Tally:
    """One grader's errors on all files. `late`: rows without a verdict at the deadline."""

    name: str
    false_negatives: int
    false_positives: int
    unscored: int
    late: int
    seconds: float

    @property
    def wrong(self) -> int:
        """Verdicts that contradict a firm expectation; a row past the deadline has none and is wrong too."""
        return self.false_negatives + self.false_positives + self.unscored


def main() -> None:
    """Run the three graders one after the other and print their tallies."""
    options = _options()
    rows = list(_rows(options.data))
    tallies = []
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, command in _graders(source, Path(directory)).items():
            started = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started
            verdicts = _read(Path(directory) / f"{name}.jsonl")
            tallies.append(_tally(name, rows, verdicts, seconds))
            _print(tallies[-1])
    figure = (min(tally.wrong for tally in tallies[1:]) + 1) / (tallies[0].wrong + 1)
    if options.json:
        record = {
            "rows": len(rows),
            "figure": figure,
            "graders": [vars(tally) | {"wrong": tally.wrong} for tally in tallies],
        }
        Path(options.json).write_text(json.dumps(record, indent=2) + "\n")
    print(f"figure: {figure:.2f} (fewest wrong verdicts of a rival + 1) / (ours + 1)")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "grading")
    parser.add_argument("--json", metavar="FILE", help="where the figures go")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"{options.data}: no such directory; --data names the folder with cases.jsonl and the completions")
    return options


def _graders(source: Path, directory: Path) -> dict[str, list[str]]:
    python = RIVAL_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        _make_rival_environment()
    rival = [str(python), str(ROOT / "benchmarks" / "grading_rival.py"), str(source)]
    ours = [
        sys.executable,
        "-c",
        "from open_rs.cli import main; main()",
        "grade",
        str(source),
        "--workers",
        str(WORKERS),
        "--json",
    ]
    return {
        "open-rs": [*ours, "--timeout", str(DEADLINE_SECONDS), "--out", str(directory / "open-rs.jsonl")],
        "math-verify": [
            *rival,
            str(directory / "math-verify.jsonl"),
            "math-verify",
            str(WORKERS),
            str(DEADLINE_SECONDS),
        ],
        "trl": [*rival, str(directory / "trl.jsonl"), "trl", str(WORKERS), str(DEADLINE_SECONDS)],
    }


def _make_rival_environment() -> None:
    subprocess.run([sys.executable, "-m", "venv", str(RIVAL_ENVIRONMENT)], check=True)
    pip = [str(RIVAL_ENVIRONMENT / "bin" / "pip"), "install", "--quiet"]
    subprocess.run([*pip, "trl==1.16.*", "math-verify==0.9.0", "latex2sympy2_extended==1.11.0"], check=True)


def _rows(data: Path) -> Iterator[dict[str, Any]]:
    """All rows with `expected`: true, false, or null where only the deadline counts."""
    label_errors = json.loads(LABEL_ERRORS.read_text())
    for name in FILES:
        opener = gzip.open if name.endswith(".gz") else open
        with opener(data / name, "rt") as lines:
            for index, line in enumerate(lines):
                row = json.loads(line)
                identity = f"{name}:{row.get('uid', index)}"
                yield {
                    "id": identity,
                    "gold": row["gold"],
                    "completion": row["completion"],
                    "expected": None if row.get("uid") in label_errors else _expected(row),
                }


def _expected(row: dict[str, Any]) -> bool | None:
    if "tier" in row:
        return row["label"] if row["tier"] in ("int", "agree") else None
    return row.get("expected")


def _read(path: Path) -> dict[str, dict[str, Any]]:
    with path.open() as lines:
        return {row["id"]: row for row in map(json.loads, lines)}


def _tally(name: str, rows: list[dict[str, Any]], verdicts: dict[str, dict[str, Any]], seconds: float) -> Tally:
    counts = {"false_negatives": 0, "false_positives": 0, "unscored": 0, "late": 0}
    for row in rows:
        verdict = verdicts[row["id"]]
        counts["late"] += verdict["ms"] > DEADLINE_SECONDS * 1000 + 1000
        if row["expected"] is None or verdict["correct"] is row["expected"]:
            continue
        kind = {None: "unscored", False: "false_negatives", True: "false_positives"}[verdict["correct"]]
        counts[kind] += 1
        print(f"  {name}: {row['id']} gold {row['gold']!r}: {verdict['correct']}, expected {row['expected']}")
    return Tally(name=name, seconds=round(seconds, 2), **counts)


def _print(tally: Tally) -> None:
    kinds = (
        f"{tally.false_negatives} false negatives, {tally.false_positives} false positives, {tally.unscored} unscored"
    )
    print(f"{tally.name}: {tally.wrong} wrong ({kinds}), {tally.late} past the deadline, {tally.seconds} s")


if __name__ == "__main__":
    main()
