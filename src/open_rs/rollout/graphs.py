"""Captured CUDA graphs of the decode step: one replay instead of several hundred kernel launches.

One graph is captured for each (rows, visible length) that a run meets; both grow in coarse steps, so there are few. All
graphs read the same input buffers, write the same logits and share one memory pool. Where a capture fails the step runs
as it is, and the log says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

logger = logging.getLogger(__name__)

Step = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # tokens [n], positions [n], length -> logits [n, V]


class GraphedStep:
    """Runs `step` through captured graphs; a drop-in for `step` itself. The logits last until the next call."""

    def __init__(self, step: Step, max_rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device):
        self.step = step
        self.tokens = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.positions = torch.zeros_like(self.tokens)
        self.logits = torch.zeros((max_rows, vocabulary), dtype=dtype, device=device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self.works = True

    def __call__(self, tokens: torch.Tensor, positions: torch.Tensor, length: int) -> torch.Tensor:
        if not self.works:
            return self.step(tokens, positions, length)
        rows = tokens.shape[0]
        self.tokens[:rows] = tokens
        self.positions[:rows] = positions
        if (rows, length) not in self.graphs and not self._capture(rows, length):
            return self.step(tokens, positions, length)
        self.graphs[rows, length].replay()
        return self.logits[:rows]

    def _run(self, rows: int, length: int) -> None:
        self.logits[:rows].copy_(self.step(self.tokens[:rows], self.positions[:rows], length))

    def _capture(self, rows: int, length: int) -> bool:
        """Warm up on a side stream, as capturing demands, then capture. Writing the same places twice is harmless."""
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run(rows, length)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                self._run(rows, length)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("no CUDA graph for the decode step, running it kernel by kernel: %s", error)
            self.works = False
            return False
        self.graphs[rows, length] = graph
        return True
