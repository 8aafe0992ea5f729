"""Whole runs on a tiny random model: they learn, they can be cut off anywhere, they never write over anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from open_rs.train.run import resume, train
from open_rs.types import UserError
from planted_recipe import recipe, settings

REPOSITORY = Path(__file__).resolve().parents[2]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(run: Path) -> list[dict]:
    timed = ("seconds", "tokens_per_second")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(timed)} for line in lines]


def test_a_run_leaves_everything_that_it_promises(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "summary.json", "rollouts", "results", "model"} <= names
    assert len(list((finished_run / "rollouts").iterdir())) == 6
    summary = json.loads((finished_run / "summary.json").read_text())
    assert {"base", "trained", "difference", "seconds", "tokens"} <= summary.keys()
    assert {"value", "ci95", "p_value"} <= summary["difference"].keys()
    assert [row["step"] for row in rows(finished_run)] == [1, 2, 3, 4, 5, 6]
    assert "validation_accuracy" in rows(finished_run)[2]


def test_the_trained_model_loads_with_plain_transformers(finished_run: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(finished_run / "model")
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "1 + 1"}], add_generation_prompt=True)
    assert model.config.model_type == "qwen2"
    assert len(prompt) > 0


def test_the_same_recipe_gives_the_same_weights(checkpoint: Path, finished_run: Path, tmp_path: Path) -> None:
    train(recipe(checkpoint), tmp_path / "again")
    assert same_weights(finished_run, tmp_path / "again")
    assert rows(finished_run) == rows(tmp_path / "again")


def test_another_seed_gives_other_weights(checkpoint: Path, finished_run: Path, tmp_path: Path) -> None:
    train(recipe(checkpoint, "train.seed=7"), tmp_path / "other")
    assert not same_weights(finished_run, tmp_path / "other")


def test_a_run_killed_again_and_again_ends_as_the_one_that_was_not(
    checkpoint: Path, finished_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "open_rs", "train"]
    first = [*command, "demo", *settings(checkpoint), "--out", str(out)]
    again = [*command, "--resume", str(out)]
    for number, moment in enumerate(("results/base/completions.jsonl", "rollouts/step-000001", "rollouts/step-000004")):
        process = subprocess.Popen(again if number else first, env=environment, stderr=subprocess.DEVNULL)
        _wait_for(process, out, moment)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(again, env=environment, stderr=subprocess.DEVNULL, check=True)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert any(event["kind"] == "resumed" and event["step"] >= 2 for event in events)
    assert same_weights(finished_run, out)
    assert rows(finished_run) == rows(out)


def _wait_for(process: subprocess.Popen, out: Path, moment: str) -> None:
    """Until a file of that name has come into being; the process must still be running then."""
    deadline = time.monotonic() + 90
    while not any(out.glob(f"{moment}*")):
        assert process.poll() is None, f"the run ended before {moment}"
        assert time.monotonic() < deadline, f"no {moment} in 90 seconds"
        time.sleep(0.002)


def test_a_directory_that_holds_a_run_is_refused(checkpoint: Path, finished_run: Path) -> None:
    before = (finished_run / "summary.json").read_bytes()
    with pytest.raises(UserError, match="already holds files"):
        train(recipe(checkpoint), finished_run)
    assert (finished_run / "summary.json").read_bytes() == before


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(finished_run: Path) -> None:
    before = weights(finished_run)
    summary = resume(finished_run)
    assert summary["steps"] == 6
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(finished_run).items())


def test_an_endpoint_can_not_be_trained_through(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rollout\.engine"):
        train(recipe(checkpoint, "rollout.engine=endpoint"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_learning_rate_that_explodes_is_rolled_back_and_stopped(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "explodes"
    limits = ("guard.max_grad_norm=0.000001", "guard.patience=1", "guard.max_rollbacks=2")
    summary = train(recipe(checkpoint, *limits), out)
    events = [json.loads(line)["kind"] for line in (out / "events.jsonl").read_text().splitlines()]
    assert events.count("roll back") == 2
    assert events.count("stop") == 1
    assert summary["steps"] < 6


def test_real_problems_train_and_long_prompts_are_dropped_and_listed(
    checkpoint: Path, tmp_path: Path, shared_data: Path
) -> None:
    out = tmp_path / "real"
    started = time.monotonic()
    data = shared_data / "train" / "aime_1983_2023.jsonl.gz"
    more = ("data.name=null", f"data.path={data}", "train.max_steps=1", "prompt.max_prompt_length=400")
    train(recipe(checkpoint, *more), out)
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert any(row["reason"] == "prompt over 400 tokens" for row in dropped)
    assert time.monotonic() - started < 120
