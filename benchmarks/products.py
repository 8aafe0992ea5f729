"""Claim: on this processor oneDNN multiplies float32 matrices faster than the BLAS of the torch build, or no slower.

The three products of a linear layer in the sizes of the demo and of the 47 M model, one thread, alternating, best of 9.

    python benchmarks/products.py --json products.json
    figure: X Y      the least and the greatest ratio of oneDNN's rate to the BLAS's
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from open_rs.train.products import product, weight_gradient

SIZES = {"demo up": (2048, 128, 512), "demo down": (2048, 512, 128), "47M up": (2048, 512, 2048)}  # rows, in, out


def best_seconds(works: list[Callable[[], object]]) -> list[float]:
    """The shortest of nine alternating runs of each."""
    seconds = [[] for _ in works]
    for _ in range(9):
        for kept, work in zip(seconds, works, strict=True):
            started = time.perf_counter()
            for _ in range(10):
                work()
            kept.append((time.perf_counter() - started) / 10)
    return [min(kept) for kept in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name, (rows, wide_in, wide_out) in SIZES.items():
        x, weight, slopes = torch.randn(rows, wide_in), torch.randn(wide_out, wide_in), torch.randn(rows, wide_out)
        pairs: dict[str, list[Callable[[], object]]] = {
            "forward": [lambda x=x, w=weight: x @ w.T, lambda x=x, w=weight: product(x, w)],
            "by input": [lambda s=slopes, w=weight: s @ w, lambda s=slopes, w=weight: product(s, w.T)],
            "by weight": [lambda s=slopes, x=x: s.T @ x, lambda s=slopes, x=x: weight_gradient(s, x)],
        }
        for kind, works in pairs.items():
            blas, one_dnn = (2e-9 * rows * wide_in * wide_out / seconds for seconds in best_seconds(works))
            results.append({"layer": name, "product": kind, "blas_gflops": blas, "onednn_gflops": one_dnn})
            print(f"{name:>9} {kind:>9}: BLAS {blas:4.0f}, oneDNN {one_dnn:4.0f} GFLOP/s, ratio {one_dnn / blas:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    ratios = [row["onednn_gflops"] / row["blas_gflops"] for row in results]
    print(f"figure: {min(ratios):.2f} {max(ratios):.2f}")


if __name__ == "__main__":
    main()
