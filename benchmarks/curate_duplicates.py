"""Near-duplicate search on synthetic rows with planted repeats: time, memory, finds, beside datasketch's LSH.

    python benchmarks/curate_duplicates.py --rows 1000000 --rival-rows 100000 --json duplicates.json

The rival is `datasketch.MinHashLSH` with the same settings (64 permutations, 16 bands of 4), asked for each row. Each
side runs in a process of its own, so that peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from open_rs.data.duplicates import BAND_ROWS, BANDS, SHINGLE, find_families
from open_rs.data.text import ngram_hashes, tokens
from open_rs.types import Problem

VOCABULARY = 20_000
WORDS_A_ROW = 45  # the mean of DeepScaleR, MATH, AIME, GSM8K and DeepMath
REPEAT_EVERY = 20


@dataclass(frozen=True)
class Pool:
    """Rows made on the fly, the same at each reading; every 20th repeats the row before it with one word changed."""

    rows: int

    def __iter__(self) -> Iterator[Problem]:
        names = random.Random(0)
        words = ["".join(names.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(VOCABULARY)]
        last: list[str] = []
        for row in range(self.rows):
            draw = random.Random(row)
            if row % REPEAT_EVERY == REPEAT_EVERY - 1:
                changed = [*last]
                changed[draw.randrange(WORDS_A_ROW)] = draw.choice(words)
                yield Problem(str(row), f"{' '.join(changed)} {row - 1}", str(row - 1), "synthetic")
            else:
                last = draw.choices(words, k=WORDS_A_ROW)
                yield Problem(str(row), f"{' '.join(last)} {row}", str(row), "synthetic")


def ours(rows: int) -> int:
    return len(find_families(Pool(rows), lambda one, other: one == other))


def rival(rows: int) -> int:
    """Rows for which the index holds an earlier near duplicate."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
    found = 0
    for row, problem in enumerate(Pool(rows)):
        signature = MinHash(num_perm=BANDS * BAND_ROWS, seed=1, hashfunc=int, scheme="affine32")
        signature.update_batch((ngram_hashes(tokens(problem.question), SHINGLE) >> 32).tolist())
        found += bool(index.query(signature))
        index.insert(row, signature)
    return found


def measure(side: str, rows: int, results: multiprocessing.Queue) -> None:
    started = time.perf_counter()
    found = {"ours": ours, "datasketch LSH": rival}[side](rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put(
        {"side": side, "rows": rows, "seconds": time.perf_counter() - started, "peak_gib": peak, "found": found}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 20_000, 40_000, 100_000])
    parser.add_argument("--rival-rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    runs = [("ours", rows) for rows in asked.rows] + [("datasketch LSH", rows) for rows in asked.rival_rows]
    lines = []
    for side, rows in sorted(runs, key=lambda run: run[1]):
        results: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(side, rows, results))
        process.start()
        line = results.get()
        process.join()
        lines.append({**line, "planted": rows // REPEAT_EVERY})
        print(
            f"{side:15} {rows:>9,} rows  {line['seconds']:7.1f} s  {line['peak_gib']:5.2f} GiB  "
            f"{line['found']:,} of {rows // REPEAT_EVERY:,} planted repeats",
            flush=True,
        )
    if asked.json:
        asked.json.write_text(json.dumps(lines, indent=2) + "\n")
    last = max((line for line in lines if line["side"] == "ours"), key=lambda line: line["rows"])
    print(f"figure: near_duplicates_seconds {last['seconds']:.1f} for {last['rows']} rows, {last['peak_gib']:.2f} GiB")


if __name__ == "__main__":
    main()
