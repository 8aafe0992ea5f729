"""Cutting a batch into micro-batches by token budget, longest rows first, padded or packed into one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from open_rs.train.batch import Batch


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one forward pass reads, and where its M trained tokens lie.

    Right padding under causal attention needs no mask. `position_ids` is set for packed rows only: it restarts at 0
    with every sequence, from which transformers (without a cache) keeps the sequences apart.
    """

    input_ids: Tensor  # [b, t] i64
    position_ids: Tensor | None  # [b, t] i64
    predictors: Tensor  # [M] i64: flat places in [b * t] whose hidden state predicts a trained token
    rows: Tensor  # [M] i64: the batch's row of each trained token
    columns: Tensor  # [M] i64: the token's place in that row


def plan(lengths: Tensor, rows: Sequence[int], max_tokens: int, packing: bool) -> list[list[int]]:
    """Row numbers of each micro-batch: longest first, at most `max_tokens` counted with padding, at least one row.

    `plan(torch.tensor([3, 9, 4]), [0, 1, 2], 9, False) == [[1], [2, 0]]`.
    """
    plans: list[list[int]] = []
    used = 0
    for row in sorted(rows, key=lambda n: (-int(lengths[n]), n)):
        length = int(lengths[row])
        widest = length if packing or not plans else int(lengths[plans[-1][0]])
        if plans and used + widest <= max_tokens:
            plans[-1].append(row)
            used += widest
        else:
            plans.append([row])
            used = length
    return plans


def cut(batch: Batch, plans: Sequence[Sequence[int]], packing: bool) -> Iterator[MicroBatch]:
    """The micro-batches of a plan, each no wider than its longest row."""
    for rows in plans:
        yield _packed(batch, rows) if packing else _padded(batch, rows)


def _padded(batch: Batch, rows: Sequence[int]) -> MicroBatch:
    chosen = torch.tensor(rows)
    width = int(batch.lengths[chosen].max())
    trained = batch.trained[chosen, :width]
    local, columns = trained.nonzero(as_tuple=True)
    return MicroBatch(
        input_ids=batch.tokens[chosen, :width],
        position_ids=None,
        predictors=local * width + columns - 1,
        rows=chosen[local],
        columns=columns,
    )


def _packed(batch: Batch, rows: Sequence[int]) -> MicroBatch:
    lengths = [int(batch.lengths[row]) for row in rows]
    pieces = [batch.trained[row, :length].nonzero().squeeze(1) for row, length in zip(rows, lengths, strict=True)]
    starts = [sum(lengths[:place]) for place in range(len(rows))]
    return MicroBatch(
        input_ids=torch.cat([batch.tokens[r, :n] for r, n in zip(rows, lengths, strict=True)]).unsqueeze(0),
        position_ids=torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0),
        predictors=torch.cat([start + piece - 1 for start, piece in zip(starts, pieces, strict=True)]),
        rows=torch.cat([torch.full_like(piece, row) for row, piece in zip(rows, pieces, strict=True)]),
        columns=torch.cat(pieces),
    )
