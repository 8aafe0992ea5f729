"""Every shipped recipe passes the doctor and takes three real steps, with the embedded model and arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from open_rs.config.load import load_recipe, shipped_names
from open_rs.doctor.examine import examine
from open_rs.train.run import train

IN_PLACE = [
    "model.name_or_path=open-rs-tiny",
    "model.device=cpu",
    "model.dtype=float32",
    "data.name=arithmetic",
    "train.max_steps=3",
    "train.prompts_per_step=2",
    "rollout.max_completion_length=128",
    "validation.num_problems=0",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_names())
def test_check_and_three_steps(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, IN_PLACE)
    assert not examine(recipe, allow_constant=True).is_refused
    summary = train(recipe, tmp_path / name)
    assert summary["steps"] == 3
    rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
