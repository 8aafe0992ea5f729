"""Captured steps give what the plain step gives, and a failed capture changes nothing but the speed."""

from __future__ import annotations

import logging

import pytest
import torch

from open_rs.models import CausalLM
from open_rs.rollout import Request, Sampling
from open_rs.rollout.graphs import GraphedStep
from open_rs.rollout.local import LocalEngine
from rollout.contract import assert_logprobs, prompt_of, sample_all, tiny_model

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def double(tokens: torch.Tensor, positions: torch.Tensor, length: int) -> torch.Tensor:
    return (tokens * 2 + positions + length)[:, None].float()


def test_a_failed_capture_runs_the_plain_step_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("capture refused")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", refuse)
    step = GraphedStep(double, max_rows=8, vocabulary=1, dtype=torch.float32, device=torch.device("cpu"))
    tokens, positions = torch.arange(4), torch.arange(4) + 10
    with caplog.at_level(logging.WARNING):
        results = [step(tokens, positions, length) for length in (16, 32)]
    for result, length in zip(results, (16, 32), strict=True):
        assert result.equal(double(tokens, positions, length))
    assert caplog.text.count("capture refused") == 1


@needs_cuda
def test_graphs_sample_what_the_learner_scores() -> None:
    base = tiny_model()
    model = CausalLM(**{**vars(base), "module": base.module.cuda(), "device": torch.device("cuda")})
    engine = LocalEngine()
    engine.load(model, 0)
    requests = [Request(prompt_of(length), (0, 1, 2)) for length in (1, 7, 40)]
    with engine.awake():
        rollouts = sample_all(engine, requests, Sampling(max_tokens=40))
        assert rollouts == sample_all(engine, requests, Sampling(max_tokens=40))
    assert_logprobs(model, rollouts.values(), 1.0, 1e-3)
