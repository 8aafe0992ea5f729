"""The two sides that the learner benchmarks compare: one update by Open-RS or by TRL on the same recorded rollouts.

`python learner_sides.py ours|trl JOB` runs one side in a fresh process and prints one JSON line; the benchmarks call it
through `measure`. Memory is the process's peak resident set above what it held with the model loaded (on a GPU, the
allocator's peak above that), seconds are those of the update; sampling happens on neither side. Processor seconds, of
all threads together, tell the same story on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RIVAL = REPOSITORY / ".envs" / "trl"


@dataclass(frozen=True)
class Job:
    """A model, recorded rollouts, and how to update on them. `lengths[q][g]` counts completion tokens."""

    model: str  # a directory
    lengths: list[list[int]]
    prompt_tokens: int
    silent_groups: int = 0  # the first so many have equal rewards throughout
    dtype: str = "float32"
    learning_rate: float = 1e-4
    updates: int = 1
    gradient_checkpointing: bool = False
    tokens_per_micro_batch: int = 2048  # ours
    rows_per_micro_batch: int = 8  # TRL's
    options: dict[str, Any] = field(default_factory=dict)  # further recipe settings of ours
    weights_out: str | None = None

    @property
    def limit(self) -> int:
        return max(max(row) for row in self.lengths)


def prompts_and_completions(job: Job, vocabulary: int, seed: int) -> list[tuple[list[int], list[int], float]]:
    """(prompt, completion, reward) of every sequence, group by group; the last token is the stop token, 1."""
    chance = random.Random(seed)
    rows = []
    for q, lengths in enumerate(job.lengths):
        prompt = [chance.randrange(2, vocabulary) for _ in range(job.prompt_tokens)]
        for g, length in enumerate(lengths):
            completion = [*(chance.randrange(2, vocabulary) for _ in range(length - 1)), 1]
            rows.append((prompt, completion, 1.0 if q < job.silent_groups else float(g % 2)))
    return rows


def make_model(directory: Path, **sizes: Any) -> None:
    """Save a random Qwen2 with tied embeddings and a two-word tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    special = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    model = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, **special, **sizes))
    model.generation_config.eos_token_id = 1
    model.save_pretrained(directory)
    tokenizer = Tokenizer(WordLevel({"<pad>": 0, "<stop>": 1}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<stop>", pad_token="<pad>").save_pretrained(
        directory
    )


def measure(side: str, job: Job, packages: Path | None = None) -> dict[str, Any]:
    """Run one side in its own process, in its own environment, or in this one with `packages` on its path."""
    python = str(RIVAL / "bin" / "python") if side == "trl" and packages is None else sys.executable
    paths = os.pathsep.join(map(str, [REPOSITORY / "src", *([packages] if packages else [])]))
    environment = os.environ | {"PYTHONPATH": paths, "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(asdict(job), file)
    command = [python, str(Path(__file__).resolve()), side, file.name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ensure_rival() -> None:
    """Build TRL's environment where it is missing."""
    if not (RIVAL / "bin" / "python").exists():
        subprocess.run(["make", ".envs/trl/.complete"], cwd=REPOSITORY, check=True)


class Meter:
    """Peak memory since `start`, and seconds."""

    def start(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self._before = _resident("VmRSS")
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, float]:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _resident("VmHWM")
        seconds, cpu_seconds = time.perf_counter() - self._started, time.process_time() - self._cpu_started
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak - self._before}


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status names no {name}; this benchmark needs Linux")


def run_ours(job: Job) -> dict[str, Any]:
    import torch

    from open_rs.config.schema import AlgorithmConfig, ModelConfig, OptimizerConfig, TrainConfig
    from open_rs.train.batch import build_batch
    from open_rs.train.policy import Policy
    from open_rs.types import Group, Problem, Rollout, Score, Verdict

    algorithm = AlgorithmConfig(loss_type="dapo", sampler_correction_cap=None)
    train = TrainConfig(
        prompts_per_step=len(job.lengths),
        tokens_per_micro_batch=job.tokens_per_micro_batch,
        gradient_checkpointing=job.gradient_checkpointing,
        **job.options.get("train", {}),
    )
    model = ModelConfig(name_or_path=job.model, dtype=job.dtype)  # pyright: ignore[reportArgumentType]
    optimizer = OptimizerConfig(**job.options.get("optimizer", {}))
    policy = Policy.build(model, optimizer, algorithm, train, temperature=1.0)
    before = _vector(policy.model.module)
    updates = []
    for update in range(job.updates):
        rows = iter(prompts_and_completions(job, policy.model.module.config.vocab_size, update))
        groups, scores = [], []
        for q, lengths in enumerate(job.lengths):
            members = [next(rows) for _ in lengths]
            rollouts = tuple(
                Rollout(str(q), g, tuple(prompt), tuple(completion), None, "", "stop", 0)
                for g, (prompt, completion, _) in enumerate(members)
            )
            verdicts = tuple(Verdict(reward > 0, None, "") for _, _, reward in members)
            groups.append(Group(Problem(str(q), "", "", ""), rollouts, verdicts))
            scores.append([Score(reward, {}) for _, _, reward in members])
        meter = Meter()
        meter.start()
        batch = build_batch(groups, scores, algorithm, max_completion_length=job.limit)
        stats = policy.update(batch, job.learning_rate)
        updates.append({**meter.stop(), "loss": stats["loss"], "grad_norm": stats["grad_norm"]})
    return _report(job, before, policy.model.module, updates, torch.__version__)


def run_trl(job: Job) -> dict[str, Any]:
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainerControl, TrainerState

    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.dtype))
    waiting = iter(
        [row for update in range(job.updates) for row in prompts_and_completions(job, model.config.vocab_size, update)]
    )

    def serve(prompts: list[str], _: Any) -> dict[str, Any]:
        served = [next(waiting) for _ in prompts]
        prompt_ids, completion_ids, rewards = (list(column) for column in zip(*served, strict=True))
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": [[0.0] * len(ids) for ids in completion_ids],
            "recorded_reward": rewards,
        }

    def reward(recorded_reward: list[float], **_: Any) -> list[float]:
        return recorded_reward

    meter, updates = Meter(), []

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            meter.start()

        def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            updates.append(meter.stop())

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                updates[-1] |= {"loss": float(logs["loss"]), "grad_norm": float(logs["grad_norm"])}

    sequences, generations = sum(map(len, job.lengths)), len(job.lengths[0])
    arguments = trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not torch.cuda.is_available(),
        bf16=job.dtype == "bfloat16" and torch.cuda.is_available(),
        report_to="none",
        num_generations=generations,
        per_device_train_batch_size=job.rows_per_micro_batch,
        gradient_accumulation_steps=sequences // job.rows_per_micro_batch,
        max_completion_length=job.limit,
        temperature=1.0,
        beta=0.0,
        loss_type="dapo",
        learning_rate=job.learning_rate,
        lr_scheduler_type="constant",
        max_steps=job.updates,
        gradient_checkpointing=job.gradient_checkpointing,
        logging_steps=1,
        shuffle_dataset=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    before = _vector(model)
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": str(q)} for q in range(len(job.lengths) * job.updates)]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        rollout_func=serve,
        callbacks=[Watch()],
    )
    trainer.train()
    return _report(job, before, model, updates, f"{torch.__version__}, trl {trl.__version__}")


def _vector(model: Any) -> Any:
    import torch

    return torch.cat([p.detach().float().flatten().cpu() for _, p in sorted(model.named_parameters())])


def _report(job: Job, before: Any, model: Any, updates: list[dict[str, float]], versions: str) -> dict[str, Any]:
    import torch

    after = _vector(model)
    if job.weights_out:
        torch.save(after, job.weights_out)
    moved = (after - before).norm().item()
    return {
        "versions": versions,
        "updates": updates,
        "seconds": min(update["seconds"] for update in updates),
        "cpu_seconds": min(update["cpu_seconds"] for update in updates),
        "peak_bytes": max(update["peak_bytes"] for update in updates),
        "weights": after.numel(),
        "moved": moved / before.norm().item(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def log_normal_lengths(groups: int, generations: int, limit: int, seed: int = 0) -> list[list[int]]:
    """Completion lengths with a median of a quarter of the limit, none above it, at least one at it."""
    chance = random.Random(seed)
    rows = [
        [min(limit, max(2, round(limit / 4 * math.exp(0.7 * chance.gauss(0, 1))))) for _ in range(generations)]
        for _ in range(groups)
    ]
    rows[-1][-1] = limit
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("job", type=Path)
    arguments = parser.parse_args()
    job = Job(**json.loads(arguments.job.read_text()))
    print(json.dumps(SIDES[arguments.side](job)))


SIDES = {"ours": run_ours, "trl": run_trl}

if __name__ == "__main__":
    main()
