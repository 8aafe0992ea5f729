"""Two processes train the demo as one does: same prompts, same samples, same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from open_rs.models import embedded_model_directory

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {
    "all weights": [],
    "adapter": ["model.lora.rank=8", "optimizer.learning_rate=0.001"],
    "reference": ["algorithm.beta=0.04"],
}


def train(out: Path, num_processes: int, *more: str) -> dict[str, torch.Tensor]:
    """Five steps of the demo; the trained weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = ["train.max_steps=5", "validation.num_problems=0", "model.device=cpu", *more]
    command = [sys.executable, "-m", "open_rs", "train", "demo", *settings, "--out", str(out)]
    shared = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_processes)}
    places = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]
    ranks = [
        subprocess.Popen(command, env=shared | (place if num_processes > 1 else {}), stderr=subprocess.PIPE, text=True)
        for place in places
    ]
    errors = [rank.communicate(timeout=280)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * num_processes, errors
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("more", SETTINGS.values(), ids=SETTINGS.keys())
def test_two_processes_end_where_one_does(tmp_path: Path, more: list[str]) -> None:
    start = load_file(embedded_model_directory() / "model.safetensors")
    one, two = train(tmp_path / "one", 1, *more), train(tmp_path / "two", 2, *more)
    moved = sum(float((one[name].double() - start[name].double()).square().sum()) for name in start) ** 0.5
    apart = sum(float((one[name].double() - two[name].double()).square().sum()) for name in start) ** 0.5
    assert moved > 0
    assert apart <= 1e-3 * moved
