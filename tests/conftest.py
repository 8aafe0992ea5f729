"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """One thread: two test processes with two OpenMP threads each slow one another down many times over."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        import torch
    except ImportError:  # rooms without torch are tested without it
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real problems and completions; they lie beside the repository and are never part of it."""
    directory = REPOSITORY.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("real data is absent: ../shared/data does not exist beside this repository")
    return directory


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen2 on disk."""
    from tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def finished_run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of six steps."""
    from open_rs.train.run import train
    from planted_recipe import recipe

    out = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe(checkpoint), out)
    return out
