"""Micro-batches: every row once, longest first, within the budget where a row allows it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from open_rs.train.microbatch import cut, plan
from train.tiny_policy import recorded_batch

PLANS = {
    "longest first": ([3, 9, 4], 9, False, [[1], [2, 0]]),
    "padding counts": ([8, 2, 2], 16, False, [[0, 1], [2]]),
    "packing counts tokens": ([8, 2, 2], 12, True, [[0, 1, 2]]),
    "a row over the budget stands alone": ([30, 2], 10, False, [[0], [1]]),
    "no rows": ([], 10, False, []),
}


@pytest.mark.parametrize(("lengths", "budget", "packing", "expected"), PLANS.values(), ids=PLANS.keys())
def test_plan(lengths: list[int], budget: int, packing: bool, expected: list[list[int]]) -> None:
    assert plan(torch.tensor(lengths), range(len(lengths)), budget, packing) == expected


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100), st.booleans())
def test_every_row_is_trained_once_and_the_budget_holds(lengths: list[int], budget: int, packing: bool) -> None:
    plans = plan(torch.tensor(lengths, dtype=torch.int64), range(len(lengths)), budget, packing)
    assert sorted(row for rows in plans for row in rows) == list(range(len(lengths)))
    for rows in plans:
        width = max(lengths[row] for row in rows)
        tokens = sum(lengths[row] for row in rows) if packing else width * len(rows)
        assert tokens <= budget or len(rows) == 1


@pytest.mark.parametrize("packing", [False, True])
def test_a_micro_batch_points_at_the_token_before_each_trained_one(packing: bool) -> None:
    batch = recorded_batch()
    plans = plan(batch.lengths, range(len(batch.lengths)), 60, packing)
    seen = torch.zeros_like(batch.trained)
    for micro in cut(batch, plans, packing):
        following = micro.input_ids.view(-1)[micro.predictors + 1]
        assert torch.equal(following, batch.tokens[micro.rows, micro.columns])
        seen[micro.rows, micro.columns] = True
    assert torch.equal(seen, batch.trained)
