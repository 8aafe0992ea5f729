"""The demo's results of several seeds as a Markdown table, read from their summaries.

open-rs demo --seed 0 --out runs/seed-0; ...; python benchmarks/demo_table.py runs/seed-0 runs/seed-1 runs/seed-2
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADER = (
    "| seed | base | trained | difference, 95 % interval | p | greedy | pass@8 | one operand longer | seconds |\n"
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def row(summary: dict[str, Any]) -> str:
    """One seed: accuracies before and after on the same held-out problems, sampled at temperature 1 unless said."""
    base, trained, difference = summary["base"], summary["trained"], summary["difference"]
    longer = summary["sets"]["one_operand_longer"]
    low, high = difference["ci95"]
    cells = [
        str(summary["seed"]),
        percent(base["avg"]),
        percent(trained["avg"]),
        f"{100 * difference['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})",
        f"{difference['p_value']:.0e}",
        f"{percent(base['greedy'])} to {percent(trained['greedy'])}",
        f"{percent(base['pass@8'])} to {percent(trained['pass@8'])}",
        f"{percent(longer['base']['avg'])} to {percent(longer['trained']['avg'])}",
        f"{summary['seconds']['total']:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(HEADER)
    for directory in sys.argv[1:]:
        print(row(json.loads((Path(directory) / "summary.json").read_text())))
