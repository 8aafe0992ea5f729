"""The general path of the local engine: any causal model, through its own forward pass and its own cache.

One prompt is in flight at a time: its samples have equal positions, so no padding and no mask is needed, and caches of
any kind (sliding window, recurrent) stay exact. Legend: `n` rows of one prompt, `P` prompt tokens, `V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import DynamicCache

from open_rs.models import CausalLM
from open_rs.prompts import Prompt
from open_rs.rollout.engine import Sampling
from open_rs.rollout.sampling import row_key, sample
from open_rs.types import Rollout


@dataclass(frozen=True, slots=True)
class Row:
    """One sample to draw, at most `max_tokens` long."""

    prompt: Prompt
    sample: int
    max_tokens: int


def generate(
    model: CausalLM, rows: Sequence[Row], sampling: Sampling, version: int, max_concurrent: int
) -> Iterator[Rollout]:
    """Sample the rows prompt by prompt, at most `max_concurrent` side by side."""
    for _, group in groupby(rows, key=lambda row: id(row.prompt)):
        group_rows = list(group)
        for start in range(0, len(group_rows), max_concurrent):
            yield from _decode_group(model, group_rows[start : start + max_concurrent], sampling, version)


def to_rollout(model: CausalLM, row: Row, tokens: list[int], logprobs: list[float], version: int) -> Rollout:
    """Describe a finished row; the stop token is kept in `tokens` and left out of `text`."""
    stopped = tokens[-1] in model.stop_ids
    text = model.tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=False)
    return Rollout(
        problem_id=row.prompt.problem_id,
        sample=row.sample,
        prompt_tokens=row.prompt.tokens,
        tokens=tuple(tokens),
        logprobs=tuple(logprobs),
        text=str(text),
        finish="stop" if stopped else "length",
        policy_version=version,
    )


def _decode_group(model: CausalLM, rows: list[Row], sampling: Sampling, version: int) -> Iterator[Rollout]:
    """Prefill one prompt, copy its cache to every row, and decode until the last row has finished."""
    device = model.device
    active = list(rows)
    sampled: dict[int, tuple[list[int], list[float]]] = {id(row): ([], []) for row in rows}
    with _evaluation(model.module):
        logits, cache = _prefill(model, rows[0].prompt, len(rows))
        keys = torch.tensor([row_key(sampling, row.prompt.problem_id, row.sample) for row in rows], device=device)
    for position in range(max(row.max_tokens for row in rows)):
        with _evaluation(model.module):
            tokens, logprobs = sample(logits, keys, torch.full_like(keys, position), sampling)
            for row, token, logprob in zip(active, tokens.tolist(), logprobs.tolist(), strict=True):
                sampled[id(row)][0].append(token)
                sampled[id(row)][1].append(logprob)
        going = [i for i, row in enumerate(active) if not _is_done(sampled[id(row)][0], row, model.stop_ids)]
        done = [row for i, row in enumerate(active) if i not in set(going)]
        yield from (to_rollout(model, row, *sampled[id(row)], version) for row in done)
        if not going:
            return
        with _evaluation(model.module):
            if done:
                kept = torch.tensor(going, device=device)
                active, tokens, keys = [active[i] for i in going], tokens[kept], keys[kept]
                cache.reorder_cache(kept)  # pyright: ignore[reportArgumentType]  (annotated LongTensor)
            logits = model.module(input_ids=tokens[:, None], past_key_values=cache, use_cache=True).logits[:, -1]


def _prefill(model: CausalLM, prompt: Prompt, num_rows: int) -> tuple[torch.Tensor, Any]:
    """Logits [n, V] after the prompt and a cache with the prompt in every row."""
    tokens = torch.tensor([prompt.tokens], device=model.device)  # [1, P]
    cache = DynamicCache(config=model.base.config)
    logits = model.module(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    copies = torch.zeros(num_rows, dtype=torch.int64, device=model.device)
    cache.reorder_cache(copies)  # pyright: ignore[reportArgumentType]  (annotated LongTensor)
    return logits[copies], cache


def _is_done(tokens: list[int], row: Row, stop_ids: frozenset[int]) -> bool:
    return tokens[-1] in stop_ids or len(tokens) >= row.max_tokens


@contextmanager
def _evaluation(module: Any) -> Iterator[None]:
    """No dropout, no gradient; the module's mode is put back, because the learner owns it."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
