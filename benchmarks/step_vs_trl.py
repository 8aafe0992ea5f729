"""Claim: a whole GRPO step (sample, grade, update) takes at most a third of the time that TRL 1.16 takes.

The demo's model, problems, rewards, group size, limits, learning rate and dtype on both sides, each in its own process,
alternating: a chunk of steps of ours, a chunk of TRL's, and so on, each chunk from the starting weights, its first step
not counted. TRL samples with `transformers.generate`, the fastest of its engines here: the vLLM that runs on these CPUs
is newer than TRL supports. `--rows` are the micro-batches that TRL is tried with; its best counts.

    python benchmarks/step_vs_trl.py --json step.json
    figure: X      median seconds of TRL's step over median seconds of ours
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
TRL_ENVIRONMENT = REPOSITORY / ".envs" / "trl"


@dataclass(frozen=True)
class Job:
    """One chunk of steps on one side."""

    steps: int  # one more is run first and not counted
    threads: int
    dtype: str
    rows: int  # TRL's micro-batch
    seed: int


def recipe_of(job: Job) -> Any:
    """The demo, without validation."""
    from open_rs.config.load import load_recipe

    return load_recipe(
        "demo",
        [
            f"train.max_steps={job.steps + 1}",
            f"train.seed={job.seed}",
            f"model.dtype={job.dtype}",
            "validation.num_problems=0",
            "optimizer.warmup_ratio=0.0",
            "guard.action=warn",
        ],
    )


def run_ours(job: Job) -> dict[str, Any]:
    """`open_rs.train.loop.one_step`, as the loop calls it."""
    import torch

    from open_rs.config.load import resolved_yaml
    from open_rs.run_dir import RunDir
    from open_rs.train.loop import one_step
    from open_rs.train.parts import Parts

    torch.set_num_threads(job.threads)
    recipe = recipe_of(job)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        run = RunDir.create(Path(directory) / "run", resolved_yaml(recipe))
        with Parts.build(recipe, run, lambda *_: None, started=time.time()) as parts:
            for step in range(job.steps + 1):
                started = time.perf_counter()
                row = one_step(parts, step)
                rows.append({"seconds": time.perf_counter() - started, "metrics": row})
    return {"seconds": [row["seconds"] for row in rows[1:]], "last": rows[-1]["metrics"]}


def run_trl(job: Job) -> dict[str, Any]:
    """`GRPOTrainer` on the same problems and prompts, with rewards of the same meaning and weights."""
    import torch
    import trl  # pyright: ignore[reportMissingImports]
    from datasets import Dataset
    from math_verify import parse, verify
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from open_rs.data.arithmetic import generate
    from open_rs.models import embedded_model_directory
    from open_rs.prompts import render

    torch.set_num_threads(job.threads)
    recipe = recipe_of(job)
    directory = embedded_model_directory()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    problems = generate(recipe.data.arithmetic, "train")
    prompts = [render(problem, tokenizer, recipe.prompt.system, recipe.prompt.user_template) for problem in problems]

    def accuracy(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        pairs = zip(completions, answer, strict=True)
        return [float(verify(parse(f"${gold}$"), parse(text))) for text, gold in pairs]

    def form(completions: list[str], **_: Any) -> list[float]:
        return [float(text.count("\n</think>\n") == 1) for text in completions]

    seconds: list[float] = []
    logs: dict[str, Any] = {}

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

        def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
            last.update(logs or {})

    last = logs
    sequences = recipe.train.prompts_per_step * recipe.rollout.num_generations
    settings = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=job.dtype == "bfloat16",
        report_to="none",
        num_generations=recipe.rollout.num_generations,
        per_device_train_batch_size=job.rows,
        gradient_accumulation_steps=sequences // job.rows,
        max_completion_length=recipe.rollout.max_completion_length,
        temperature=recipe.rollout.temperature,
        beta=recipe.algorithm.beta,
        loss_type=recipe.algorithm.loss_type,
        reward_weights=[1.0, 2.0],
        learning_rate=recipe.optimizer.learning_rate,
        lr_scheduler_type="constant",
        max_steps=job.steps + 1,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        seed=job.seed,
    )
    rows = [
        {"prompt": prompt.text, "answer": problem.answer} for prompt, problem in zip(prompts, problems, strict=True)
    ]
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, job.dtype)),
        reward_funcs=[form, accuracy],
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Watch()],
    )
    trainer.train()
    return {"seconds": seconds[1:], "last": logs}


def measure(side: str, job: Job) -> dict[str, Any]:
    """Run one chunk in its own process and environment."""
    python = sys.executable if side == "ours" else str(TRL_ENVIRONMENT / "bin" / "python")
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY / "src"),
        "OMP_NUM_THREADS": str(job.threads),
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [python, __file__, "--side", side, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Alternate chunks of ours and of TRL at each micro-batch."""
    results = []
    for chunk in range(arguments.chunks):
        for side, rows in [("ours", 0), *(("trl", rows) for rows in arguments.rows)]:
            job = Job(arguments.steps, arguments.threads, arguments.dtype, rows, seed=chunk)
            results.append({"side": side, "rows": rows, **measure(side, job)})
            seconds = results[-1]["seconds"]
            label = side if side == "ours" else f"trl, micro-batches of {rows}"
            print(f"chunk {chunk}, {label}: median {median(seconds):.2f} s a step of {len(seconds)}", flush=True)
    return results


def median_step(results: list[dict[str, Any]], side: str, rows: int) -> float:
    """Median over all counted steps of one side."""
    chosen = [row["seconds"] for row in results if (row["side"], row["rows"]) == (side, rows)]
    return median(seconds for chunk in chosen for seconds in chunk)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chunks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="counted steps a chunk")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128], help="TRL's micro-batches")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](Job(**arguments.job)), default=str))
        return
    if not (TRL_ENVIRONMENT / "bin" / "python").exists():
        subprocess.run(["sh", str(REPOSITORY / "scripts" / "make_trl_env.sh"), str(TRL_ENVIRONMENT)], check=True)
    results = compare(arguments)
    ours = median_step(results, "ours", 0)
    best = min(median_step(results, "trl", rows) for rows in arguments.rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(f"ours {ours:.2f} s a step, TRL at its best {best:.2f} s")
    print(f"figure: {best / ours:.2f}")


SIDES: dict[str, Callable[[Job], dict[str, Any]]] = {"ours": run_ours, "trl": run_trl}

if __name__ == "__main__":
    main()
