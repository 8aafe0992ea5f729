"""Two processes (gloo) against one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from open_rs.types import UserError
from train import ddp_worker
from train.tiny_policy import tiny_model, tiny_policy

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes ends with, for every variant."""
    out = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    paths = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS)])}
    processes = [
        subprocess.Popen(
            [sys.executable, ddp_worker.__file__, str(out)],
            env=os.environ | shared | paths | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=280)
        assert process.returncode == 0, errors
    return [torch.load(out / f"rank-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("variant", ddp_worker.VARIANTS)
def test_two_processes_end_where_one_does(ranks: list[dict[str, Any]], variant: str) -> None:
    single, logs = ddp_worker.train(variant)
    settings = ddp_worker.VARIANTS[variant]
    start = dict(tiny_model(**{k: v for k, v in settings.items() if k in ("lora", "dtype")}).module.named_parameters())
    weights = {name: parameter.detach() for name, parameter in single.trainable()}
    together = ranks[0][variant]["weights"]
    moved = _distance(weights, start)
    assert moved > 0
    assert _distance(weights, together) <= (1e-3 if "8 bit" not in variant else 2e-2) * moved
    for name in ("loss", "grad_norm", "entropy", "kl", "ratio_mean", "sampler_kl", "tokens_trained", "truncated"):
        for step, (one, two) in enumerate(zip(logs, ranks[1][variant]["logs"], strict=True)):
            assert two[name] == pytest.approx(one[name], rel=1e-2 if "8 bit" in variant else 1e-3, abs=1e-6), (
                name,
                step,
            )


@pytest.mark.parametrize("variant", ddp_worker.VARIANTS)
def test_processes_hold_the_same_weights(ranks: list[dict[str, Any]], variant: str) -> None:
    first, second = (rank[variant]["weights"] for rank in ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_prompts_must_divide_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 3)
    with pytest.raises(
        UserError, match=r"8 prompts do not divide over 3 processes; use 6 or 9, or start 2 or 4 processes"
    ):
        tiny_policy(prompts_per_step=8)


def _distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return torch.cat([(left[name].float() - right[name].float()).flatten() for name in left]).norm().item()
